"""Checks each model once, free of charge, before the first upload or call that is for it."""

import anyio

from pipeline.gemini.api import ModelsApi


class Preflight:
    """``check`` returns once the model has been checked, however many ask at once."""

    def __init__(self, models: ModelsApi) -> None:
        self._models = models
        self._passed: set[str] = set()
        self._one_at_a_time = anyio.Lock()

    async def check(self, model: str) -> None:
        """Raises ``StopRun`` for a bad key, an unknown model, a wrong base URL."""
        if model in self._passed:
            return
        async with self._one_at_a_time:
            if model not in self._passed:
                await self._models.check(model)
                self._passed.add(model)
