"""Execute a notebook with the image's kernel, and export it as a page with its plot."""

import nbformat
from nbconvert import HTMLExporter
from nbconvert.preprocessors import ExecutePreprocessor
from nbformat.v4 import new_code_cell, new_notebook

notebook = new_notebook(
    cells=[
        new_code_cell("import numpy as np\nfloat(np.linalg.norm([3, 4]))"),
        new_code_cell("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2, 3]);"),
    ]
)
done, _ = ExecutePreprocessor(timeout=100, kernel_name="python3").preprocess(notebook)
assert done.cells[0].outputs[0].data["text/plain"] == "5.0", done.cells[0].outputs
assert "image/png" in done.cells[1].outputs[0].data, done.cells[1].outputs
page, _ = HTMLExporter().from_notebook_node(nbformat.from_dict(done))
assert "data:image/png" in page
print("executed, and exported", len(page), "characters")
