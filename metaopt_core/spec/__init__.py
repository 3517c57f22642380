"""What a user may ask for: the models of `pipelines.yaml`, the loader that names every mistake, the schema for editors.

`models` says what is right, `document` reads YAML with the place of each key and value, `explain` turns what the models refuse into
sentences, `loader` puts them together. None of them imports torch, Prefect or MLflow.
"""
