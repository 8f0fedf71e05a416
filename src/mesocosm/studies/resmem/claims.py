"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.resmem import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="With the residual of its nearest neighbour any network fits its training set exactly.",
        rule="k = 1: train accuracy = 1 for every network, on training images whose features no other one shares",
        paper="an identity, as sigma goes to 0",
        judge=rules.judge_memory,
        control=lab.Control(
            statement="residuals shuffled among the training images: at the two narrowest widths train accuracy falls "
            "below the network's own, 95 % upper bound over seeds < 0",
            judge=rules.judge_memory_control,
        ),
        unit="train accuracy",
        cells=("network/", "interpolating", "stopped early"),
    ),
    lab.Claim(
        id="C2",
        statement="Where the network underfits, the memory of its residuals lowers the test error.",
        rule="the two narrowest widths, k, sigma and T chosen on validation images, paired over seeds: 95 % lower "
        "bounds > 0 of ResMem's test accuracy minus the network's, and minus that of its neighbours' labels alone, "
        "which have their own k and sigma",
        paper="CIFAR-100, ResNet-8: 56.46 % to 59.66 %; gains for every depth from 8 to 56",
        judge=rules.judge_gain,
        control=lab.Control(
            statement="residuals shuffled among the training images: the interval of the gain reaches 0; no residual "
            "left on any training image: the gain is exactly 0",
            judge=rules.judge_gain_control,
        ),
        unit="points",
        cells=("network/",),
    ),
    lab.Claim(
        id="C3",
        statement="The gain shrinks where the network interpolates: then nothing is left to memorise.",
        rule="gain of the narrowest network (train accuracy < 0.95) minus gain of the widest after long training "
        "(train accuracy > 0.999), paired over seeds: 95 % lower bound > 0",
        paper="none; where residuals are near 0 the memory adds nothing",
        judge=rules.judge_interpolation,
        control=lab.Control(
            statement="the widest network, stopped early, gains: 95 % lower bound > 0",
            judge=rules.judge_interpolation_control,
        ),
        unit="points",
        cells=("network/", "interpolating", "stopped early"),
    ),
    lab.Claim(
        id="C4",
        statement="A linear learner of bounded norm keeps a risk however many samples it has; with the residual of "
        "the nearest sample the risk goes to 0.",
        rule="L = radius, over seeds: base risk within 5 % of (1 - L)^2 / d for n >= 1000; ResMem's risk falls with "
        "every n, and its log-log slope at d = 3 is in [-0.85, -0.45]",
        paper="risk of order d^2 L^2 n^(-2/3) + d^2 (1 - L)^2 (log(n^(1/d)) / n)^(1/d)",
        judge=rules.judge_risk,
        control=lab.Control(statement="norm up to 1: both risks are below 1e-12", judge=rules.judge_risk_control),
        unit="slope",
        cells=("linear",),
    ),
]
