"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.automata_shortcuts import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="Shallow transformers learn to simulate automata in distribution.",
        rule="with the most layers up to log2 T: the best seed's accuracy over all positions > 0.99 on flip-flop and "
        "on grid-4, and 95 % lower bound of the mean gain from one layer > 0, averaged over the two",
        paper="T = 100: most of 19 automata above 99 % with few layers, best of 20 seeds; S5 and A5 need more",
        judge=rules.judge_shallow,
        control=lab.Control(
            statement="with the labels of other strings the final one is guessed at the rate of the most common "
            "state, within 3 standard errors",
            judge=rules.judge_shallow_control,
        ),
        unit="share of labels",
        cells=("transformer/", "strangers/", "setup"),
    ),
    lab.Claim(
        id="C2",
        statement="Difficulty follows the algebra: without groups < commuting < solvable < unsolvable.",
        rule="Spearman correlation over automata of algebraic rank and normalised accuracy (accuracy - chance) / "
        "(1 - chance), mean over seeds: < -0.6, and 95 % upper bound < 0",
        paper="at equal depth, aperiodic automata are easiest and non-solvable groups hardest",
        judge=rules.judge_algebra,
        control=lab.Control(
            statement="LSTMs on the same data are above 0.99 on every solvable automaton",
            judge=rules.judge_algebra_control,
        ),
        unit="rank correlation",
        cells=("transformer/", "lstm/", "setup"),
    ),
    lab.Claim(
        id="C3",
        statement="Shortcuts are brittle: accuracy falls when ones become frequent; an LSTM's does not.",
        rule="parity: 95 % lower bound of accuracy at P(1) = 0.5 less that at 0.9 > 0.1, and paired over seeds larger "
        "than the LSTM's, lower bound > 0",
        paper="transformers that are perfect in distribution degrade at other P(1) and beyond T; LSTMs do not",
        judge=rules.judge_brittle,
        control=lab.Control(
            statement="fresh strings of P(1) = 0.5: accuracy within 0.02", judge=rules.judge_brittle_control
        ),
        unit="fall of accuracy",
        cells=("direct/", "lstm/", "transformer/grid-4/", "setup"),
    ),
    lab.Claim(
        id="C4",
        statement="Feeding the model its own state, with attention to recent positions, lets it run beyond T.",
        rule="parity, accuracy at positions T + 1 to 2 T, free running: fall with direct training less fall with "
        "scratchpad and window 2, 95 % lower bound > 0.1; accuracy there with both > 0.99, lower bound",
        paper="scratchpad training with recency bias generalises to longer strings",
        judge=rules.judge_scratchpad,
        control=lab.Control(
            statement="without the window, the fall lies between the two (to 0.005)",
            judge=rules.judge_scratchpad_control,
        ),
        unit="fall of accuracy",
        cells=("direct/", "scratchpad/", "recent scratchpad/", "setup"),
    ),
    lab.Claim(
        id="C5",
        statement="Shallow networks made by hand simulate automata exactly.",
        rule="counting, last-write, gridworld and doubling networks: no wrong string",
        paper="exact: one layer for counters and memories, 2 for gridworld, ceil(log2 T) for any automaton",
        judge=rules.judge_exact,
        control=lab.Control(
            statement="one doubling layer too few fails on symmetric-5 at T = 32", judge=rules.judge_exact_control
        ),
        unit="strings",
        cells=("constructions", "doubling"),
    ),
    lab.Claim(
        id="C6",
        statement="Incomplete supervision is harder.",
        rule="dihedral-4: accuracy with a share p_label of the labels less that with all, at equal steps and paired "
        "over seeds: 95 % upper bound < 0",
        paper="transformers still learn from indirect and missing labels, with more difficulty",
        judge=rules.judge_labels,
        control=lab.Control(
            statement="flip-flop, which all learn with few labels too: change within 0.01",
            judge=rules.judge_labels_control,
        ),
        unit="change of accuracy",
        cells=("transformer/", "few labels/", "indirect labels/", "setup"),
    ),
]
