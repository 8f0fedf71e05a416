"""The claims of the paper with their rules in words and their controls."""

from functools import partial

from mesocosm import lab
from mesocosm.studies.progressive_distillation import rules

FASTER = (
    "95 % lower bound of the share of students that reach an accuracy of 0.95 within the budget, {way} minus labels, "
    "paired > 0.3; log-rank p < 0.01 for the times, and a smaller median"
)
CLAIMS = [
    lab.Claim(
        id="C1",
        statement="A narrow student learns a sparse parity from its teacher's successive checkpoints where labels "
        "mostly fail; the finished teacher alone helps no more than labels do.",
        rule=FASTER.format(way="progressive") + "; final teacher minus labels: the interval contains 0",
        paper="progressive in far fewer steps, one-shot like cross-entropy: (100, 6), widths 50,000 and 100",
        judge=rules.judge_progressive,
        control=lab.Control(statement="a student as wide as its teacher gains less than 0.1", judge=rules.judge_wide),
        unit="share of students that learn, difference",
        cells=("parity/",),
    ),
    lab.Claim(
        id="C2",
        statement="One checkpoint from the transition, before the final one, is enough.",
        rule=FASTER.format(way="two-shot"),
        paper="the two-shot schedule nearly matches the progressive one",
        judge=rules.judge_two_shot,
        control=lab.Control(
            statement="a checkpoint from before the transition (accuracy under 0.51) or from long after it gives no "
            "gain: lower ends of the differences from labels <= 0",
            judge=rules.judge_two_shot_control,
        ),
        unit="share of students that learn, difference",
        cells=("parity/",),
    ),
    lab.Claim(
        id="C3",
        statement="In its transition, and only there, the teacher's probabilities correlate with products of few of "
        "the parity's bits.",
        rule="for the degree below k with the highest peak, mean |correlation| on subsets of the support over that on "
        "100 random sets outside: 95 % lower bound of the peak > 5; accuracy at the peak in (0.55, 0.95) in at least "
        "80 % of the teachers; 95 % upper bound of the ratio at the end < 2",
        paper="low-degree monomials spike inside the drop of the loss",
        judge=rules.judge_spike,
        control=lab.Control(
            statement="two samples of sets outside the support, and an untrained teacher: below 5",
            judge=rules.judge_spike_control,
        ),
        unit="ratio of correlations",
        cells=("parity/teacher",),
    ),
    lab.Claim(
        id="C4",
        statement="The same holds for a tree of parities, whose levels show their bits in the order in which they "
        "are learned.",
        rule="the rule of C1 on the tree; of the pairs of successive levels that a teacher learns at different steps "
        "(0.75 right turns), at least 80 % have their spikes in the same order",
        paper="the same ranking of ways, for 8 classes and 5 bits a node",
        judge=rules.judge_hierarchy,
        control=lab.Control(
            statement="a student as wide as its teacher gains less than 0.1",
            judge=partial(rules.judge_wide, part="hierarchy"),
        ),
        unit="share of students that learn, difference",
        cells=("hierarchy/",),
    ),
    lab.Claim(
        id="C5",
        statement="In its transition a masked language model of a grammar predicts from short n-grams, later from "
        "more, and students learn faster from successive checkpoints.",
        rule="paired over students, 95 % lower bound of accuracy at half the budget, progressive minus final teacher "
        "> 0; M_close(3) at its minimum within the transition, found on half of the sentences, lies below both ends of "
        "training on the others: 95 % lower bounds over sentences > 0",
        paper="three phases on cfg3b; progressive helps most at the second one's checkpoints",
        judge=rules.judge_grammar,
        control=lab.Control(
            statement="trained on sentences with shuffled symbols, M_robust < 0.1",
            judge=partial(rules.judge_shuffled, part="grammar"),
        ),
        unit="masked accuracy, difference",
        cells=("grammar/",),
    ),
    lab.Claim(
        id="C6",
        statement="On text too, dependence on n-grams comes with the drop of the loss, and students learn faster "
        "from successive checkpoints.",
        rule="paired over students, 95 % lower bound of accuracy at half the budget, progressive minus final teacher "
        "> 0; 95 % lower bound over windows of M_robust(3) after the transition minus before it > 0",
        paper="BERT on Wikipedia and books",
        judge=rules.judge_text,
        control=lab.Control(
            statement="trained on windows with shuffled characters, M_robust < 0.1",
            judge=partial(rules.judge_shuffled, part="text"),
        ),
        unit="masked accuracy, difference",
        cells=("text/",),
    ),
]
