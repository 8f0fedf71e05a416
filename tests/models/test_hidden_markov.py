"""Predictors against the tasks' exact conditionals, and the promises of every model."""

import pytest
import torch
from torch.func import functional_call, grad, stack_module_state, vmap

from mesocosm.models import DiscreteHMMPredictor, GaussianHMMPredictor
from mesocosm.seeding import generator
from mesocosm.tasks import DiscreteHMM, FlipFlop, GaussianHMM

DISCRETE = DiscreteHMM(states=3, symbols=4, length=5, seen=(0, 3), predicted=(1, 2, 4), table=2)
GAUSSIAN = GaussianHMM(states=3, dimensions=5, table=2)
MODELS = {
    "discrete": (DISCRETE, lambda: DiscreteHMMPredictor.for_task(DISCRETE)),
    "gaussian": (GAUSSIAN, lambda: GaussianHMMPredictor.for_task(GAUSSIAN)),
}


def test_a_discrete_predictor_with_the_true_parameters_is_exact():
    model = DiscreteHMMPredictor.for_task(DISCRETE, sweeps=200).double()
    model.emission_logits.data = DISCRETE.emission.log()
    model.transition_logits.data = DISCRETE.transition.log()
    batch = DISCRETE.sample(40, generator(0))
    predicted = model(batch.inputs).exp()
    for place in DISCRETE.predicted:
        table = DISCRETE.conditional(DISCRETE.seen, (place,))
        exact = table[batch.targets[:, 0], batch.targets[:, 3]]
        torch.testing.assert_close(predicted[:, place], exact, rtol=0, atol=1e-14)


def test_a_shown_token_is_predicted_from_the_others():
    model = DiscreteHMMPredictor.for_task(DISCRETE)
    tokens = DISCRETE.sample(6, generator(0)).targets
    hidden = tokens.clone()
    hidden[:, 2] = 4
    torch.testing.assert_close(model(tokens)[:, 2], model(hidden)[:, 2])


def test_a_gaussian_predictor_with_the_true_parameters_is_exact():
    model = GaussianHMMPredictor.for_task(GAUSSIAN).double()
    model.directions.data, model.logits.data = 3 * GAUSSIAN.means, GAUSSIAN.transition.log()
    x = GAUSSIAN.sample(40, generator(0)).inputs.double()
    torch.testing.assert_close(model(x), GAUSSIAN.optimal(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_stochastic(name):
    torch.manual_seed(0)
    model = MODELS[name][1]()
    assert torch.allclose(model.transition.sum(0), torch.ones(3))
    columns = model.emission.sum(0) if name == "discrete" else model.means.norm(dim=0)
    assert torch.allclose(columns, torch.ones(3))
    if name == "discrete":
        assert torch.allclose(model.transition.sum(1), torch.ones(3), atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_a_mapped_stack_equals_its_replicas(name):
    task, make = MODELS[name]
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        models.append(make())
    inputs = torch.stack([task.sample(4, generator(seed)).inputs for seed in range(3)])
    alone = [model(x) for model, x in zip(models, inputs)]
    for output in alone:
        assert output.shape == (4, *task.output_shape)
        output.sin().sum().backward()
    parameters, buffers = stack_module_state(models)

    def forward(p, b, x):
        return functional_call(models[0], (p, b), x)

    torch.testing.assert_close(vmap(forward)(parameters, buffers, inputs), torch.stack(alone), rtol=1e-5, atol=1e-5)
    inner = vmap(grad(lambda p, b, x: forward(p, b, x).sin().sum()))(parameters, buffers, inputs)
    for key, gradient in inner.items():
        expected = torch.stack([model.get_parameter(key).grad for model in models])
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_models_compile_to_one_graph(name):
    torch.compiler.reset()
    task, make = MODELS[name]
    model, x = make(), task.sample(4, generator(0)).inputs
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianHMMPredictor(d_input=0), "d_input=0 is not legal"),
        (lambda: DiscreteHMMPredictor(n_symbols=4, sweeps=0), "sweeps=0 is not legal"),
        (lambda: DiscreteHMMPredictor.for_task(GAUSSIAN), "DiscreteHMMPredictor needs tokens"),
        (lambda: GaussianHMMPredictor.for_task(FlipFlop()), "GaussianHMMPredictor needs numbers"),
    ],
)
def test_bad_arguments_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
