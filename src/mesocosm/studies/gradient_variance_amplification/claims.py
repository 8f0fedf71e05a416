"""The claims, with the rules that judge them."""

from mesocosm import lab
from mesocosm.studies.gradient_variance_amplification import rules

__all__: list[str] = []

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="Minibatch noise that hardly moves the cloning loss makes long-horizon rewards oscillate.",
        rule="over checkpoints of the last half of training, F_J = sd(J) / |J of the expert| and F_l = sd(l) / l of "
        "the idle policy; linear and neural clones: 95 % lower bound of the median F_J / F_l > 100, and of F_J at the "
        "full horizon over F_J at one step > 5; judged if the median J of averaged weights is within 10 % (linear) or "
        "200 % (neural) of the expert's",
        paper="sharp oscillations of the reward on several MuJoCo tasks while the loss is flat",
        judge=rules.judge_amplification,
        control=lab.Control(
            statement="in a linear loop that contracts, A - K* = 0.5 Q, F_J / F_l is below a tenth of that",
            judge=rules.judge_amplification_control,
        ),
        unit="F_J / F_l",
        cells=(*rules.PARTS, "environment"),
    ),
    lab.Claim(
        id="C2",
        statement="An exponential moving average of the weights removes the oscillations.",
        rule="95 % upper bound of sd(J of averaged weights) / sd(J) < 0.6 for linear and neural clones at the usual "
        "batch and constant rate; linear: lower bound of the change of mean J > 0; judged under the condition of C1",
        paper="EMA stabilises training on all tasks at no cost, and often makes rate decay unnecessary",
        judge=rules.judge_averaging,
        control=lab.Control(
            statement="beta = 1 gives a ratio of exactly 1; at 16 times the batch, where little noise is left, the "
            "neural ratio is above 0.6",
            judge=rules.judge_averaging_control,
        ),
        unit="sd over sd",
        cells=(*rules.PARTS, "environment"),
    ),
    lab.Claim(
        id="C3",
        statement="The oscillations come from optimisation noise, not from scarce data.",
        rule="neural clones, paired over seeds: 95 % lower bound of the factor by which 16 times the batch at the same "
        "data cuts sd(J) > 1.4",
        paper="larger batches, rate decay and EMA help; more data, regularisation and other architectures do not",
        judge=rules.judge_batch,
        control=lab.Control(
            statement="16 times the data at the same batch cuts it by a factor below 1.5",
            judge=rules.judge_batch_control,
        ),
        unit="times",
        cells=("neural",),
    ),
    lab.Claim(
        id="C4",
        statement="For a linear clone the noise, and what the average leaves of it, follow from a formula.",
        rule="variance of the weights over eta sigma^2 / (b (2 - eta (1 + 5 / b))) in [0.9, 1.1], and that of averaged "
        "weights over V(eta, beta) times it too, 95 % intervals over seeds; rewards at a cliff of one standard "
        "deviation within 3 standard errors of -Phi(-1)",
        paper="exact",
        judge=rules.judge_laws,
        control=lab.Control(
            statement="the variance of an average of uncorrelated weights, beta / (2 - beta), is off by more than 10 %",
            judge=rules.judge_laws_control,
        ),
        unit="measured / predicted",
        cells=("stationary",),
    ),
    lab.Claim(
        id="C5",
        statement="Averaging also steadies what a language model writes when it reads its own writing.",
        rule="over checkpoints of the last half of training, 95 % upper bound of sd(free-running error of averaged "
        "weights) / sd(free-running error) < 0.6, and of the change of its mean < 0",
        paper="EMA improves and stabilises language models before learning-rate cool-down",
        judge=rules.judge_strings,
        control=lab.Control(
            statement="the loss of the next digit, over log V, moves less than a fifth as much",
            judge=rules.judge_strings_control,
        ),
        unit="sd over sd",
        cells=("counter",),
    ),
]
