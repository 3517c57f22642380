"""From a spec to the head that it names."""

from metaopt_core.meta.heads.head import Head
from metaopt_core.meta.heads.kernel import Kernel
from metaopt_core.meta.heads.process import GaussianProcess
from metaopt_core.meta.heads.ridge import Ridge
from metaopt_core.networks.network import Network
from metaopt_core.spec.heads import ProcessSpec
from metaopt_core.spec.train import InnerSpec


def head_of(inner: InnerSpec, network: Network, classification: bool) -> Head | None:
    """What the inner loop solves for; none where it takes gradient steps. Raises UserError for a network without a last layer to
    solve for."""
    pooled = inner.prior == "pooled"
    if inner.solver == "gradient":
        return None
    _ = network.width
    if inner.solver == "ridge":
        return Ridge(network, classification, pooled)
    process = inner.process or ProcessSpec()
    kernel, fitted = Kernel(process.kernel), process.kernel_parameters == "by_task"
    return GaussianProcess(network, classification, pooled, kernel, process.trained_by == "marginal_likelihood", fitted)
