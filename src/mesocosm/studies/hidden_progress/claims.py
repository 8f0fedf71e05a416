"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.hidden_progress import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="Networks of many kinds learn a parity abruptly, after a long plateau at chance.",
        rule="9 in 10 seeds of every network reach 2 % error; median share of that time above 45 % error > 0.3 in MLPs",
        paper="15 settings learn n in {10, 20, 30}, k in {2, 3, 4}: flat at 50 % error, then a sharp drop",
        judge=rules.judge_plateau,
        control=lab.Control(
            statement="error on labels of pure noise stays above 45 %, on untrained first-layer features above 40 %",
            judge=rules.judge_plateau_control,
        ),
        unit="of t_c",
        cells=("C1/",),
    ),
    lab.Claim(
        id="C2",
        statement="The time to learn t_c is a power of n, whose exponent grows with k.",
        rule="slope of log median t_c on log n: larger at k = 3 than 2 and at k = 5 than 3; R^2 > 0.9 at k = 3",
        paper="t_c = n^(alpha k) at small n and k",
        judge=rules.judge_scaling,
        control=lab.Control(
            statement="a linear target, k = 1, has no plateau; half of the seeds has the slope of the other half",
            judge=rules.judge_scaling_control,
        ),
        cells=("C2/",),
    ),
    lab.Claim(
        id="C3",
        statement="On the plateau, weights move steadily along the population gradient of the true parity.",
        rule="where error is last > 48 %, z > 3 against wrong sets in 9 of 10 seeds; R^2 of progress over steps > 0.8",
        paper="rho(t) = max |w_t - w_0| grows while loss and error are flat",
        judge=rules.judge_progress,
        control=lab.Control(statement="on labels of pure noise the mean z is 0", judge=rules.judge_progress_control),
        unit="of seeds",
        cells=("C3/",),
    ),
    lab.Claim(
        id="C4",
        statement="Learning is not a memoryless search: its times are concentrated.",
        rule="coefficient of variation of t_c < 0.5; earliest / median > 0.5; from one start no wider than from many",
        paper="times far from the geometric law of a Langevin-like search",
        judge=rules.judge_search,
        control=lab.Control(
            statement="geometric times of the same median fail the test", judge=rules.judge_search_control
        ),
        cells=("C4/",),
    ),
    lab.Claim(
        id="C5",
        statement="The gradient of a ReLU neuron with signs as weights shows the relevant bits by a Fourier gap.",
        rule="enumeration equals theory to 1e-9, in the gradient and in |xi_(k-1) / xi_(k+1)| = (n-k)/(k-1)",
        paper="|xi_(k-1)| - |xi_(k+1)| >= 0.03 (n-1)^(-(k-1)/2)",
        judge=rules.judge_gap,
        cells=("C5/",),
    ),
    lab.Claim(
        id="C6",
        statement="From few samples, a parity is learned long after all of them are fitted.",
        rule="on the fewest samples from which 9 in 10 seeds learn, median lag t_c / (time to fit all samples) > 2",
        paper="grokking on small samples with weight decay",
        judge=rules.judge_grokking,
        control=lab.Control(statement="on the most samples the median lag is < 2", judge=rules.judge_grokking_control),
        cells=("C6/",),
    ),
]
