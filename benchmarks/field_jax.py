"""The settings of `field.py` in JAX: `vmap` over replicas and `scan` over steps, compiled as one program.

Weights are dictionaries of `[*shape]` by the names of the PyTorch modules, so that both frameworks can be given the
same ones. Samples are drawn inside the scan, by counters as is JAX's way.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy
from settings import PARITY, TRANSFORMER

from mesocosm.tasks.flip_flop import IGNORE, READ, WRITE, ZERO

Weights = dict[str, jax.Array]


def linear(weights: Weights, name: str, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def layer_norm(weights: Weights, name: str, x):
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def parity_loss(weights: Weights, batch):
    inputs, targets, *_ = batch
    hidden = jax.nn.relu(linear(weights, "layers.0", inputs))
    scores = linear(weights, "layers.1", hidden)[:, 0]
    return jax.nn.relu(1 - targets * scores).mean()


def parity_sample(key, size: int, n: int, k: int):
    words = jax.random.bits(key, (size, -(-n // 32), 1), "uint32")
    bits = (words >> jnp.arange(32, dtype="uint32")).reshape(size, -1)[:, :n] & 1
    inputs = 1 - 2 * bits.astype("float32")
    return inputs, inputs[:, :k].prod(1)


def attention(weights: Weights, name: str, x, heads: int):
    B, T, D = x.shape
    query, key, value = linear(weights, f"{name}.qkv", x).reshape(B, T, 3, heads, D // heads).transpose(2, 0, 3, 1, 4)
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(D // heads)
    scores = jnp.where(jnp.tril(jnp.ones((T, T), bool)), scores, -jnp.inf)
    z = jax.nn.softmax(scores) @ value
    return linear(weights, f"{name}.out", z.swapaxes(1, 2).reshape(B, T, D))


def transformer_loss(weights: Weights, batch, layers: int, heads: int):
    inputs, targets, counted = batch
    x = weights["embed.weight"][inputs] + weights["pos_embed.weight"][: inputs.shape[1]]
    for i in range(layers):
        at = f"blocks.{i}"
        x = x + attention(weights, f"{at}.attn", layer_norm(weights, f"{at}.ln1", x), heads)
        hidden = jax.nn.gelu(linear(weights, f"{at}.mlp.fc_in", layer_norm(weights, f"{at}.ln2", x)), approximate=False)
        x = x + linear(weights, f"{at}.mlp.fc_out", hidden)
    logits = layer_norm(weights, "ln_final", x) @ weights["unembed.weight"].T
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]
    return (losses * counted).sum() / counted.sum()


def flip_flop_sample(key, size: int, length: int, p_ignore: float):
    pairs, (first, second) = length // 2, jax.random.split(key)
    uniform = jax.random.uniform(first, (size, pairs))
    instructions = jnp.where(uniform < p_ignore, IGNORE, jnp.where(uniform < (1 + p_ignore) / 2, WRITE, READ))
    instructions = instructions.at[:, 0].set(WRITE).at[:, -1].set(READ)
    coins = jax.random.bernoulli(second, shape=(size, pairs)).astype("int32")
    last_write = jax.lax.cummax(jnp.where(instructions == WRITE, jnp.arange(pairs), 0), axis=1)
    bits = jnp.where(instructions == READ, jnp.take_along_axis(coins, last_write, 1), coins)
    string = jnp.stack((instructions, ZERO + bits), 2).reshape(size, length)
    return string[:, :-1], string[:, 1:], (string[:, :-1] == READ).astype("float32")


def sgd(weights: Weights, gradient: Weights, memory, t, rate: float, decay: float):
    return {n: w - rate * (gradient[n] + decay * w) for n, w in weights.items()}, memory


def adamw(weights: Weights, gradient: Weights, memory, t, rate: float, decay: float):
    means, squares = memory
    means = {n: 0.9 * m + 0.1 * gradient[n] for n, m in means.items()}
    squares = {n: 0.999 * s + 0.001 * gradient[n] ** 2 for n, s in squares.items()}

    def moved(n: str):
        spread = jnp.sqrt(squares[n]) / jnp.sqrt(1 - 0.999**t) + 1e-8
        return weights[n] * (1 - rate * decay) - rate / (1 - 0.9**t) * means[n] / spread

    return {n: moved(n) for n in weights}, (means, squares)


def trainer(loss, sample, update, steps: int):
    """`run(weights, memory, keys, start)` takes R replicas, `[R, ...]` each, `steps` on; gives losses `[R]` too."""

    def replica(weights: Weights, memory, key, start):
        def step(carry, t):
            weights, memory = carry
            value, gradient = jax.value_and_grad(loss)(weights, sample(jax.random.fold_in(key, t)))
            return update(weights, gradient, memory, (t + 1).astype("float32")), value

        (weights, memory), losses = jax.lax.scan(step, (weights, memory), start + jnp.arange(steps))
        return weights, memory, losses.mean()

    return jax.jit(jax.vmap(replica, (0, 0, 0, None)), donate_argnums=(0, 1))


def losses(loss, weights: Weights, batch) -> numpy.ndarray:
    """`[R]`, on a batch `[R, B, ...]` of PyTorch's."""
    fields = [jnp.asarray(numpy.array(part)) for part in batch[:3]]
    return numpy.array(jax.vmap(loss)(weights, fields))


def from_torch(tensors: dict) -> Weights:
    return {name: jnp.asarray(numpy.array(tensor)) for name, tensor in tensors.items()}


def keys(replicas: int) -> jax.Array:
    return jax.random.split(jax.random.key(0), replicas)


def zeros(weights: Weights) -> tuple[Weights, Weights]:
    return {n: jnp.zeros_like(w) for n, w in weights.items()}, {n: jnp.zeros_like(w) for n, w in weights.items()}


PARTS = {
    PARITY.name: (parity_loss, partial(parity_sample, size=32, n=50, k=3), partial(sgd, rate=0.1, decay=0.01)),
    TRANSFORMER.name: (
        partial(transformer_loss, layers=2, heads=4),
        partial(flip_flop_sample, size=16, length=64, p_ignore=0.8),
        partial(adamw, rate=1e-3, decay=0.1),
    ),
}
