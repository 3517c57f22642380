"""Heads in closed form: what a task's support set determines without a step of gradient descent, on features that tasks share."""
