"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.salt import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="With soft labels of a weaker, smaller teacher for the first part of training a larger model ends "
        "better, and gets to where it would have ended earlier.",
        rule="limited text: 95 % upper bound of the held-out loss of SALT - baseline at the end, paired over seeds, "
        "< 0; steps until SALT is at the baseline's final loss over the baseline's steps, upper bound < 0.9",
        paper="2.8B student, 1.5B teacher: few-shot average 47.94 against 47.3; the baseline's quality within 70 % of "
        "the steps, 25-28 % of wall-clock time saved",
        judge=rules.judge_gain,
        control=lab.Control(
            statement="byte frequencies as teacher: 95 % lower bound of the same difference > -0.002",
            judge=rules.judge_gain_control,
        ),
        unit="nats per byte",
        cells=("limited/", "abundant/"),
    ),
    lab.Claim(
        id="C2",
        statement="Taught by the weaker teacher all along (RKD) the model ends worse, though it is ahead at first.",
        rule="limited text, paired over seeds: 95 % lower bound of the final loss of RKD - SALT > 0, and upper bound "
        "of RKD - baseline at 15 % of the steps < 0",
        paper="RKD is ahead early and ends below baseline and SALT",
        judge=rules.judge_whole_run,
        control=lab.Control(
            statement="a chain whose true laws teach: 95 % upper bound of the same final difference < 0",
            judge=rules.judge_whole_run_control,
        ),
        unit="nats per byte",
        cells=("limited/", "abundant/", "chain/"),
    ),
    lab.Claim(
        id="C3",
        statement="The help is in easy regions, and after the second stage the hard ones have not suffered.",
        rule="limited text, held-out bytes in quarters by the teacher's own loss, loss of SALT - baseline: when the "
        "soft labels end, 95 % upper bound in the easiest quarter < 0 and lower bound of hardest - easiest > 0; at the "
        "end, upper bound in the hardest quarter < 0.01",
        paper="gains on easy and medium sequences while the teacher teaches; none lost on hard ones in the end",
        judge=rules.judge_regions,
        control=lab.Control(
            statement="byte frequencies as teacher: 95 % upper bound of hardest - easiest < 0",
            judge=rules.judge_regions_control,
        ),
        unit="nats per byte, hardest - easiest",
        cells=("limited/", "chain/"),
    ),
    lab.Claim(
        id="C4",
        statement="The better the teacher, the more it helps; too weak a one does not.",
        rule="limited text, three teachers: Spearman correlation of gain and teacher's held-out loss < 0 in at least "
        "80 % of the seeds",
        paper="a 0.5B teacher does not help a 2.8B student, a 1.5B teacher does",
        judge=rules.judge_teachers,
        control=lab.Control(
            statement="before training, where the arms are the same network: in no seed",
            judge=rules.judge_teachers_control,
        ),
        unit="share of seeds",
        cells=("limited/",),
    ),
    lab.Claim(
        id="C5",
        statement="Soft labels trade the variance of the gradient for a bias towards the teacher.",
        rule="known laws p, teacher q, weight w: over 100,000 drawn labels a seed, variance of the gradient over that "
        "of cross-entropy, in units of (1 - w)^2, and bias of its mean in the logits, in units of w E|q - p|: 95 % "
        "intervals of both within 2 % of 1",
        paper="theory: the variance falls with (1 - w), the bias grows with w and the teacher's distance",
        judge=rules.judge_noise,
        control=lab.Control(
            statement="labels drawn from the teacher with probability w: 95 % lower bound of the variance > 1.1 units",
            judge=rules.judge_noise_control,
        ),
        unit="times (1 - w)^2",
        cells=("label noise",),
    ),
]
