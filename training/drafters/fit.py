"""Fits the MTP layer's projection by least squares, on what the target itself writes.

The layer only projects, so its best weights follow in closed form from pairs of what it sees (the last token's
embedding and the hidden state before it, both normalized) and what it is to say (the normalized hidden state after it).
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
from benchmarks.llama_server import LlamaServer

from training.drafters.gguf_file import ModelFile
from training.task_model.prompts import own_prompts

ANSWER_TOKENS = 128
AT_ONCE = 4
RIDGE = 30.0
EPSILON = 1e-5


def projection(program: str, target: Path, prompts: int) -> tuple[Any, float]:
    """The projection for :func:`models.model_with_mtp`, and the share of tokens, of answers that it was not fitted on,
    that it predicts.

    Args:
        program: a ``llama-server``.
        prompts: answers that are written and learned from; takes two seconds each on two cores.
    """
    model = ModelFile(target)
    embeddings = model.tensors["token_embd.weight"].values
    scale = model.tensors["output_norm.weight"].values
    answers = _answers(program, target, prompts)
    pairs = []
    for tokens, begin, hidden in answers:
        states = _normalized(hidden / scale)
        seen = numpy.concatenate([_normalized(embeddings[tokens[1:]]), states[:-1]], axis=1)
        pairs.append((seen[begin:], states[1:][begin:]))
    held_out = max(1, len(pairs) // 10)
    given = numpy.concatenate([seen for seen, _ in pairs[held_out:]])
    wanted = numpy.concatenate([said for _, said in pairs[held_out:]])
    squares = given.T @ given + RIDGE * numpy.eye(given.shape[1], dtype=given.dtype)
    weights = numpy.linalg.solve(squares, given.T @ wanted).T
    right = total = 0
    for seen, said in pairs[:held_out]:
        words = [
            numpy.argmax((state * scale) @ embeddings.T, axis=1) for state in (_normalized(seen @ weights.T), said)
        ]
        right += int((words[0] == words[1]).sum())
        total += len(said)
    return weights, right / total


def _answers(program: str, target: Path, prompts: int) -> list[tuple[Any, int, Any]]:
    """Of each: the tokens of prompt and answer, where the answer begins, and the hidden states after the last norm."""
    texts = [prompt.text for prompt in own_prompts()]
    stride = max(1, len(texts) // prompts)
    writing = LlamaServer(program, target, "--parallel", str(AT_ONCE), "--ctx-size", "16384")
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            written = list(pool.map(lambda text: _written(writing, text), texts[::stride][:prompts]))
    finally:
        writing.stop()
    reading = LlamaServer(program, target, "--embeddings", "--pooling", "none", "--ubatch-size", "4096", "-b", "4096")
    try:
        found = []
        for tokens, begin in written:
            told = reading.post("/embeddings", {"content": tokens, "embd_normalize": -1})
            found.append((numpy.array(tokens), begin, numpy.array(told[0]["embedding"], numpy.float32)))
        return found
    finally:
        reading.stop()


def _written(server: LlamaServer, text: str) -> tuple[list[int], int]:
    messages = [{"role": "user", "content": text}]
    prompt = server.post("/apply-template", {"messages": messages})["prompt"]
    tokens = server.post("/tokenize", {"content": prompt, "parse_special": True})["tokens"][-1500:]
    asked = {"prompt": tokens, "n_predict": ANSWER_TOKENS, "temperature": 0, "return_tokens": True}
    return tokens + server.post("/completion", asked)["tokens"], len(tokens) - 1


def _normalized(states: Any) -> Any:
    """As ``rms_norm`` does."""
    return states / numpy.sqrt((states * states).mean(axis=1, keepdims=True) + EPSILON)
