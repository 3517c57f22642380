"""The settings of a pipeline in words."""

from metaopt_core.reporting.numbers import counted, settings
from metaopt_core.spec.heads import ProcessSpec
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.train import ImplicitSpec, InnerSpec, TrainSpec

_ADAPTED = {"all": "all parameters", "head": "only the last layer", "body": "all but the last layer"}


def asked(spec: PipelineSpec, device: str, test_tasks: int) -> dict[str, str]:
    """One line each on tasks, training, network, algorithm, loops and evaluation. test_tasks: how many there are of them, which a
    spec of data that are read doesn't know.
    """
    train, outer = spec.train, spec.train.outer
    tasks = settings(spec.generate.model_dump(mode="json", exclude=set(spec.generate.not_shown)))
    kind = f"{train.ways}-way " if train.ways else ""
    episode, held_out = (
        f"{kind}{shots}-shot with {counted(queries, 'query')} {'a class' if train.ways else 'a task'}"
        for shots, queries in ((_shots(train), train.queries), (", ".join(map(str, spec.evaluated_shots)), spec.evaluate_queries))
    )
    held_out += f", each task {spec.evaluate.repeats} times" if spec.evaluate.repeats > 1 else ""
    clipped = f", gradients clipped to norm {outer.clip_norm:g}" if outer.clip_norm else ""
    return {
        "Tasks": f"{spec.generate.distribution}: {tasks}" if tasks else spec.generate.distribution,
        "Training": f"{episode}; {counted(train.iterations, 'iteration')} of {counted(train.meta_batch_size, 'task')}",
        "Network": f"{train.model.name}: {settings(train.model.model_dump(mode='json', exclude={'name'}))}",
        "Algorithm": f"{train.label}; {_through_solution(train.inner) if train.solved else _meta_gradient(train)}",
        "Inner loop": _solution(train.inner) if train.solved else _inner_loop(train.inner),
        "Outer loop": f"Adam, step size {outer.lr:g}, {outer.schedule}{clipped}",
        "Evaluation": f"{held_out}; {counted(test_tasks, 'meta-test task')} that training has not seen; "
        f"up to {counted(spec.evaluate.steps, 'step')}, compared after {spec.horizon}",
        "Seed and device": f"{spec.seed}, {device}",
    }


def _shots(train: TrainSpec) -> str:
    return f"{train.fewest_shots} to {train.most_shots}" if train.fewest_shots else str(train.most_shots)


def _meta_gradient(train: TrainSpec) -> str:
    said = f"{train.meta_gradient.replace('_', ' ')} meta-gradient"
    if train.meta_gradient == "implicit":
        implicit = train.implicit or ImplicitSpec()
        said += f", λ = {train.proximal:g}, {counted(implicit.solver_steps, 'step')} of conjugate gradients"
    if train.first_order_share:
        said += f", first order in the first {train.first_order_share:.0%} of iterations"
    if train.outer_loss == "multi_step":
        return (
            f"{said}, of the losses after every step, with increasing weight on the last, in the first "
            f"{train.multi_step_share:.0%} of iterations"
        )
    return f"{said} of the loss after the last step"


def _through_solution(inner: InnerSpec) -> str:
    process = inner.process or ProcessSpec()
    if inner.solver == "gp" and process.trained_by == "marginal_likelihood":
        return "features by the marginal likelihood of support and query examples"
    implicitly = inner.solver == "gp" and process.kernel_parameters == "by_task"
    return f"exact gradient through the solution{', by the implicit function theorem' if implicitly else ''}"


def _solution(inner: InnerSpec) -> str:
    around = "the last layer that all tasks share" if inner.prior == "pooled" else "a learned constant"
    if inner.solver == "ridge":
        return f"ridge regression on features, in closed form, with learned regularization, around {around}"
    process = inner.process or ProcessSpec()
    by = "fitted to each task" if process.kernel_parameters == "by_task" else "shared by all tasks"
    kernel = "an RBF kernel" if process.kernel == "rbf" else "a linear kernel"
    return f"a Gaussian process on features, in closed form, with {kernel} whose parameters are {by}, around {around}"


def _inner_loop(inner: InnerSpec) -> str:
    moves = _ADAPTED[inner.adapts] if isinstance(inner.adapts, str) else ", ".join(inner.adapts)
    rule = inner.rule.replace("_", " ") + (f" ({inner.momentum:g})" if inner.rule == "momentum" else "")
    said = f"{counted(inner.steps, 'step')} of {rule} on {moves}, step size {inner.lr:g}"
    if inner.learned_lr != "none":
        said += f" at first and then learned, {inner.learned_lr.replace('_', ' ')}"
        said += f", between {inner.lr_bounds[0]:g} and {inner.lr_bounds[1]:g}" if inner.lr_bounds else ""
    said += f", gradients clipped to norm {inner.clip_norm:g}" if inner.clip_norm else ""
    return said + (f", minibatches of {inner.minibatch}" if inner.minibatch else "")
