"""Plot a table."""

import io

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")
table = pd.DataFrame({"x": range(10), "y": [value**2 for value in range(10)]})
image = io.BytesIO()
table.plot(x="x", y="y").figure.savefig(image, format="png")
assert image.getvalue().startswith(b"\x89PNG")
print(f"{len(image.getvalue())} bytes of PNG")
