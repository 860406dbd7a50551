"""Embedding models as GGUF files (BERT, BGE, E5, Jina ...) through llama.cpp; pooling as the file says."""

from importlib import metadata

from bench.backends import BackendError
from bench.config import Similarity
from bench.encoders import EncoderInfo, Encoding

POOLING = {1: "mean", 2: "cls", 3: "last"}
"""llama.cpp's numbers. 0 is a model without pooling: it gives a vector for each token, and is no encoder of texts."""


class LlamaEncoder:
    """One text at a time: nothing is timed, and no batch changes the last digits."""

    def __init__(self, settings: Similarity, model_path: str) -> None:
        from llama_cpp import Llama

        try:
            self._model = Llama(
                model_path,
                embedding=True,
                n_ctx=settings.context,
                n_batch=settings.context,
                n_ubatch=settings.context,
                n_gpu_layers=settings.n_gpu_layers,
                verbose=False,
            )
        except ValueError as error:
            raise BackendError(f"{model_path}: llama.cpp cannot load it ({error})") from error
        self._pooling = POOLING.get(int(self._model.pooling_type()))
        if self._pooling is None:
            raise BackendError(f"{model_path}: the file names no pooling; it is no embedding model")
        self._settings = settings

    def describe(self) -> EncoderInfo:
        assert self._pooling is not None
        return EncoderInfo(
            engine="llama_cpp",
            engine_version=metadata.version("llama-cpp-python"),
            dimension=self._model.n_embd(),
            pooling=self._pooling,
            context=self._settings.context,
        )

    def encode(self, text: str) -> Encoding:
        whole = self._settings.prefix + text
        cut = len(self._model.tokenize(whole.encode())) > self._settings.context
        return Encoding(tuple(map(float, self._model.embed(whole, normalize=True, truncate=True))), cut)
