"""The specification of pipelines: the models of `pipelines.yaml`, the loader that reports every mistake, the schema for editors.

`pipeline` and the models of its parts define what is valid, `document` reads YAML with the place of each key and value, `includes`
resolves `include`, `explain` turns the models' errors into sentences, `loader` combines them, and `as_yaml` writes a pipeline that
reads back unchanged. None of them imports torch, Prefect or MLflow.
"""
