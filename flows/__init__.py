"""What runs, when and in what order: Prefect flows, their schedules and servers, and the command line."""
