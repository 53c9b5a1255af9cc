"""vLLM's executor on a CPU: the model in the engine's own process. vLLM imports it by its path, as `spec` names it.

By itself vLLM starts another process for the model there, since it sets OpenMP's cores as that one starts (0.32:
`CpuPlatform.check_and_update_config`). Here they are set from within. An engine starts in two thirds of the time so, each step is
passed on to nobody, and none waits for it in a loop that keeps a core busy.
"""

from __future__ import annotations

import os

import torch
from vllm.utils.ompmultiprocessing import OMPProcessManager
from vllm.v1.executor.uniproc_executor import UniProcExecutor


class InProcess(UniProcExecutor):  # type: ignore[misc]  # vLLM is untyped here
    def _init_executor(self) -> None:
        manager = OMPProcessManager(self.vllm_config)
        if not manager.skip_setup:
            [cores] = manager.cpu_lists
            os.sched_setaffinity(0, cores)  # of this thread, and those that OpenMP starts for it
            torch.set_num_threads(len(cores))
        super()._init_executor()
