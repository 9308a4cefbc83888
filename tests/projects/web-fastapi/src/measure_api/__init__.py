from fastapi import FastAPI

app = FastAPI()


def main():
    print(app.title)
