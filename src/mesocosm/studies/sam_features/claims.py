"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.sam_features import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="The further uphill the gradient is taken, the better the hard feature is learned, and the easy one "
        "no worse.",
        rule="two linear branches, by LSAM and by SAM, paired over seeds: 95 % upper bounds of the change of the hard "
        "branch's error from rho = 0 to the largest < 0, and of Spearman's correlation between rho and this error "
        "< 0; change of the easy branch's error < 0.005",
        paper="in a toy model of two features SAM improves the hard one, as phantom gradients favour it",
        judge=rules.judge_hard_feature,
        control=lab.Control(
            statement="two equally strong features: neither the difference of their errors nor its change from rho = 0 "
            "to the largest rho differs from 0",
            judge=rules.judge_equal_features,
        ),
        unit="share of inputs",
        cells=("toy", "equal"),
    ),
    lab.Claim(
        id="C2",
        statement="A short way uphill the examples weigh more evenly than at the parameters themselves.",
        rule="sigma(-y f(x)) on the training set, at 5 checkpoints of LSAM with short_rho, paired over seeds: 95 % "
        "lower bound of its Gini coefficient at the real minus at the phantom parameters > 0",
        paper="Lorenz curves at phantom parameters are nearer to the diagonal: toy, CelebA, Waterbirds (Figure 3)",
        judge=rules.judge_evenness,
        control=lab.Control(
            statement="rho = 0 changes it by less than 1e-7; as far in random directions it changes, on average over "
            "these checkpoints, by less than 20 % of LSAM's change",
            judge=rules.judge_evenness_control,
        ),
        unit="Gini coefficient",
        cells=("toy LSAM",),
    ),
    lab.Claim(
        id="C3",
        statement="A short way uphill the hard feature gets a larger share of the gradient, at equal weights of the "
        "examples.",
        rule="norm of the gradient to the hard encoder over that to the easy one, with sigma(-y f(x)) held at the real "
        "parameters, at 5 checkpoints of LSAM with short_rho, paired over seeds: 95 % lower bound of the geometric "
        " mean of phantom over real > 1",
        paper="learning rate scaling, the second of two mechanisms",
        judge=rules.judge_share,
        control=lab.Control(
            statement="moving only the encoders as far changes the ratio by less than 2 %",
            judge=rules.judge_share_control,
        ),
        unit="times",
        cells=("toy LSAM",),
    ),
    lab.Claim(
        id="C4",
        statement="On composites of two images that both tell the label, SAM makes the hard half easier to read off a "
        "convolutional network's features.",
        rule="error of a linear probe of the last features on composites whose halves are independent, paired over "
        "seeds: 95 % upper bound of SAM's (at tested_rho) minus SGD's < 0, with test errors within 0.005",
        paper="lower probe errors by some points on CIFAR-MNIST, CelebA, Waterbirds and DomainBed",
        judge=rules.judge_probe,
        control=lab.Control(
            statement="networks trained where the easy half tells nothing: the hard half's probe error stays",
            judge=rules.judge_probe_control,
        ),
        unit="share of inputs",
        cells=("images", "alone"),
    ),
]
