"""What a user may ask for: the models of `pipelines.yaml`, the loader that names every mistake, the schema for editors.

`pipeline` and the models of its parts say what is right, `document` reads YAML with the place of each key and value, `files` finds
what a file includes, `explain` turns what the models refuse into sentences, `loader` puts them together, and `writing` writes a
pipeline as it is read. None of them imports torch, Prefect or MLflow.
"""
