"""Load the CUDA libraries that JAX brings. None of them needs a GPU or a driver for this."""

import ctypes
from importlib import metadata

loaded = []
for package in metadata.distributions():
    if package.name.startswith("nvidia-"):
        for path in package.files or []:
            # plugins of NVSHMEM are for MPI and for networks, of which the image has one kind only
            if ".so." in path.name and "stubs" not in path.parts and not path.name.startswith("nvshmem_"):
                try:
                    ctypes.CDLL(str(package.locate_file(path)))
                    loaded.append(path.name)
                except OSError as error:
                    if "libcuda.so.1" not in str(error):  # the driver's own, which --nv brings
                        raise
assert any(name.startswith("libcudnn.so") for name in loaded), loaded
assert any(name.startswith("libnccl.so") for name in loaded), loaded
print("loaded", len(loaded), "libraries")
