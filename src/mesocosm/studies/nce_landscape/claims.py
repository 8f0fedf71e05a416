"""The claims, with the rules that judge them."""

from mesocosm import lab
from mesocosm.studies.nce_landscape import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="Both losses have their optimum at the data; eNCE is there the Bhattacharyya coefficient, with a "
        "Hessian whose condition number is polynomial in the distance.",
        rule="at every distance R, in float64: values, gradients and Hessian at tau* as the formulas have them, "
        "and the condition number ((t + sqrt(t^2 - 4)) / 2)^2 with t = 2 + R^2/4, to a relative 1e-10; gradients by "
        "two routes on the way to a relative 1e-8. Scale of gradients: exp(-R^2/8)",
        paper="exact",
        judge=rules.judge_identities,
        control=lab.Control(
            statement="with c off by 0.1, gradients exceed 0.001 exp(-R^2/8)", judge=rules.judge_identities_control
        ),
        unit="largest relative error",
        cells=("identities",),
    ),
    lab.Claim(
        id="C2",
        statement="Between noise and data both losses are exponentially flat in the squared distance.",
        rule="g(R): least gradient norm between 0.5 tau* and 0.95 tau*; slope of log g against R^2 over all R from 4 "
        "on in [-0.150, -0.110], for NCE and for eNCE",
        paper="exp(-Omega(R^2)); -1/8 in the limit",
        judge=rules.judge_flatness,
        control=lab.Control(
            statement="both means moved together at distance 1: slope of log g against the squared shift in "
            "[-0.005, 0.005]",
            judge=rules.judge_flatness_control,
        ),
        unit="per squared distance",
        cells=("landscape", "moved together"),
    ),
    lab.Claim(
        id="C3",
        statement="Gradient descent takes exponentially many steps in the squared distance, normalised gradient "
        "descent on eNCE polynomially many.",
        rule="steps to |tau - tau*| <= 0.5 at the best rate of the grid, the budget where it ended a run: slope of "
        "log steps against R^2 > 0.10 for GD on NCE and on eNCE, also without any one R; steps x rate <= 3 |tau*| for "
        "NGD on eNCE at every R",
        paper="GD on NCE: exponential lower bound; NGD on eNCE: polynomial upper bound",
        judge=rules.judge_descent,
        control=lab.Control(
            statement="the same slope for NGD on eNCE is below 0.10, also without any one R",
            judge=rules.judge_descent_control,
        ),
        unit="per squared distance",
        cells=("descent",),
    ),
    lab.Claim(
        id="C4",
        statement="Under normalised gradient descent eNCE takes fewer steps than NCE when noise is far from data.",
        rule="steps of NGD on NCE over steps of NGD on eNCE, each at its best rate, > 1.5 at R = 6 and at R = 5",
        paper="the rate depends on the condition number at tau*, which the paper bounds for eNCE",
        judge=rules.judge_losses,
        control=lab.Control(
            statement="the ratio at R = 2 is in [0.8, 1.25]",
            judge=rules.judge_losses_control,
        ),
        unit="times as many steps",
        cells=("descent",),
    ),
    lab.Claim(
        id="C5",
        statement="On samples in many dimensions, normalised gradient descent on either loss comes nearer to the data "
        "than gradient descent on NCE in as many steps.",
        rule="distance to tau* after all steps, weights averaged over the last tenth, at the method's best rate of the "
        "grid: 95 % lower bound of GD NCE less NGD eNCE, and of GD NCE less NGD NCE, paired over seeds, > 0",
        paper="NGD on eNCE converges on 16-dimensional Gaussians where GD on NCE does not move",
        judge=rules.judge_sampled,
        control=lab.Control(
            statement="at distance 1 the 95 % interval of GD NCE less NGD eNCE reaches 0, or the difference is below "
            "a tenth of the distance",
            judge=rules.judge_sampled_control,
        ),
        unit="distance in (theta, c)",
        cells=("sampled",),
    ),
]
