"""`medv` under FSDP2 on CPUs: accelerate shards for GPUs only, so gloo processes are passed off as GPU ones.

Nothing else differs: accelerate's own FSDP2 code, told by its usual variables, shards the model.
"""

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from medv_lab.cli.main import app

start = PartialState.__init__


def start_as_gpu(self, *args, **kwargs):
    start(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


PartialState.__init__ = start_as_gpu
app()
