from setuptools import setup

setup(name="loader", version="0.1", py_modules=["loader"])
