"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.memorization import rules

CLAIMS = [
    lab.Claim(
        id="Exact",
        statement="Memorisation scores from random subsets agree with leaving out one example at a time, where that is "
        "affordable.",
        rule="ridge regression on 60 examples: scores of 60 retrainings equal their closed form by leverages to 1e-10; "
        "95 % lower bound over seeds of their correlation with scores of 2,000 models on subsets of 90 % > 0.8",
        paper="exact",
        judge=rules.judge_reference,
        control=lab.Control(
            statement="with each model given the subset of the next, the correlation is within 0.4 of 0",
            judge=rules.judge_reference_control,
        ),
        unit="correlation",
        cells=("reference",),
    ),
    lab.Claim(
        id="C1",
        statement="As networks grow, memorisation scores move to their two ends.",
        rule="from the second-smallest to the largest width, paired over seeds: 95 % lower bounds of the growth of the "
        "share of examples with a score above 0.8, and of the scores' standard deviation, > 0",
        paper="ResNets on CIFAR-100: most scores low at all depths, and a second mode near 1 for deep ones",
        judge=rules.judge_ends,
        control=lab.Control(
            statement="the largest networks, each given the subset of the next: no score above 0.8, and a standard "
            "deviation from 0.8 to 1.25 times that of chance",
            judge=rules.judge_wrong_subsets,
        ),
        unit="share of examples",
        cells=("networks",),
    ),
    lab.Claim(
        id="C2",
        statement="Examples differ in how their scores go with size: most are flat, fall, or rise and fall, and those "
        "that only increase are the mislabelled ones.",
        rule="95 % bounds over seeds: share of increasing scores among flipped labels less that among true labels > "
        "0.5; share of flat, decreasing or cap-shaped scores among true labels > 0.5",
        paper="the average score falls beyond some depth; increasing examples are a mislabelled or ambiguous minority",
        judge=rules.judge_trajectories,
        control=lab.Control(
            statement="with no label flipped, fewer scores increase over the same widths",
            judge=rules.judge_true_labels,
        ),
        unit="share of examples",
        cells=("networks", "true labels"),
    ),
    lab.Claim(
        id="C3",
        statement="Proxies of memorisation correlate with it at one size, but fall with size where it rises.",
        rule="means over the examples with increasing scores, slope for a doubling of the width, 95 % bounds over "
        "seeds: that of the score > 0, those of 1 - cumulative confidence and of EL2N at the end < 0; their "
        "correlation with the score over all examples at the largest width > 0.4",
        paper="C-score and other proxies miss the trend with size",
        judge=rules.judge_proxies,
        control=lab.Control(
            statement="the score itself as a proxy: on examples found increasing by one half of the networks, its "
            "slope by the other half is above 0",
            judge=rules.judge_halves,
        ),
        unit="score for a doubling",
        cells=("networks",),
    ),
    lab.Claim(
        id="C4",
        statement="Distillation inhibits memorisation, most of all of examples whose scores increase with size.",
        rule="students of a teacher on the same subset against networks of their width on labels, 95 % lower bounds "
        "over seeds, for every width of students: reduction of the mean score > 0, and larger on increasing than on "
        "flat or decreasing examples",
        paper="distilled students memorise less, above all of the increasing examples, and test better",
        judge=rules.judge_distillation,
        control=lab.Control(
            statement="students of the teacher's likeliest class alone: on increasing examples less than 20 % of that "
            "reduction",
            judge=rules.judge_hard_labels,
        ),
        unit="score",
        cells=("networks", "distilled", "argmax"),
    ),
]
