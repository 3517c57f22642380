"""The four stages as Prefect tasks: generate, train, evaluate, log. One module for each stage."""
