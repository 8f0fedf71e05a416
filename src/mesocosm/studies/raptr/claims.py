"""The claims of the paper with their rules in words and their controls."""

from functools import partial

from mesocosm import lab
from mesocosm.studies.raptr import rules

CLAIMS = [
    lab.Claim(
        id="C1a",
        statement="Per FLOP, random paths that grow longer train a language model better than the whole network does.",
        rule="text, paired over seeds at equal training FLOPs: 95 % upper bound of the held-out loss of RaPTr minus "
        "that of the whole network, trained for fewer steps, < 0",
        paper="BERT and UL2: equal or better loss with 20 to 33 % fewer FLOPs",
        judge=rules.judge_superiority,
        control=lab.Control(
            statement="paths of constant mean length do not do as well: loss of layer dropping minus RaPTr's > 0",
            judge=rules.judge_superiority_control,
        ),
        unit="nats a byte",
        cells=("text",),
    ),
    lab.Claim(
        id="C1b",
        statement="Per FLOP, such paths are as good as the whole network on polynomials.",
        rule="paired over seeds at equal training FLOPs: 95 % upper bound of MSE(RaPTr) / MSE(whole network) < 1.10",
        paper="polynomials are the paper's own sandbox for how degrees are learned along paths",
        judge=rules.judge_equality,
        control=lab.Control(
            statement="paths of constant mean length do not do as well: MSE of layer dropping minus RaPTr's > 0",
            judge=rules.judge_equality_control,
        ),
        unit="ratio of MSE",
        cells=("equal compute", "raptr", "layerdrop"),
    ),
    lab.Claim(
        id="C2a",
        statement="Paths that grow longer train a language model better than paths that grow shorter.",
        rule="text, paired over seeds at equal training FLOPs: 95 % upper bound of the held-out loss along rising "
        "paths minus that along falling ones, which end in full, < 0",
        paper="what separates it from progressive layer dropping, which does worse",
        judge=partial(rules.judge_increasing, sandbox="text"),
        unit="nats a byte",
        cells=("text raptr", "text reversed"),
    ),
    lab.Claim(
        id="C2b",
        statement="The same on polynomials.",
        rule="paired over seeds at equal training FLOPs: 95 % upper bound of the MSE along rising paths minus that "
        "along falling ones < 0",
        paper="not said: the paper's comparison is on language models",
        judge=partial(rules.judge_increasing, sandbox="polynomials"),
        unit="MSE / variance",
        cells=("raptr", "reversed"),
    ),
    lab.Claim(
        id="C3",
        statement="The loss hardly jumps when paths grow longer, the less the deeper the network.",
        rule="|mean loss of paths without one inner layer - loss of the whole network| against L, both at "
        "initialisation and after training: 95 % upper bound of the exponent < -0.3",
        paper="O(L^-c) with c at least 0.5 for residual networks with norm; 0.88 in the worst case measured",
        judge=rules.judge_smoothness,
        control=lab.Control(
            statement="without residual connections it does not fall: exponent > -0.3 after training, at depths where "
            "such networks learn at all (MSE < 0.9)",
            judge=rules.judge_smoothness_control,
        ),
        unit="exponent of L",
        cells=("gap",),
    ),
    lab.Claim(
        id="C4",
        statement="Short paths learn the simple parts first, and learn them as well as the whole network does.",
        rule="95 % lower bounds: alpha_1 - alpha_3 at the end of stage 1 > 0.3; mean alpha of degrees 1 to 3 at the "
        "end, RaPTr minus the whole network at equal training FLOPs, > -0.02",
        paper="low degrees are learned early in short paths, as fast as in full training",
        judge=rules.judge_simple_first,
        unit="part learned",
        cells=("equal compute", "raptr"),
    ),
    lab.Claim(
        id="C5",
        statement="Scaling the layers of a path, and always keeping the first and the last, both help.",
        rule="paired over seeds: 95 % lower bounds of MSE without scaling - MSE and of MSE with all layers dropped "
        "alike - MSE, both > 0",
        paper="the paper's ablations of both",
        judge=rules.judge_ablations,
        unit="MSE / variance",
        cells=("raptr", "no scale", "no ends"),
    ),
]
