"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.masked_prediction_hmm import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="Predicting tokens from single other tokens does not identify a discrete HMM, at any gaps together.",
        rule="k states, twins (O R, R^T T R), R the largest legal rotation about the ones: all predictors of one token "
        "from one, gaps 1 to 5 in both directions, within 1e-12; 95 % lower bounds of the median distance of "
        "parameters > 0.05 and of the median difference of triple predictors (the largest task's) > 1e-4",
        paper="theorem: x_{t+m} | x_t and its reverse do not identify discrete HMMs, not even together",
        judge=rules.judge_twins,
        control=lab.Control(
            statement="a rotation that moves the ones changes pair predictors by > 1e-6; a relabelling changes neither "
            "predictors nor matched parameters",
            judge=rules.judge_twins_control,
        ),
        unit="distance",
        cells=("twin",),
    ),
    lab.Claim(
        id="C2",
        statement="The Jacobian of the predictors has exactly the rank that identifiability asks for.",
        rule="for every size and model, P less the rank at 1e-9 relative: (k-1)^2 for x2|x1, (k-1)(k-2)/2 for gaps 1 "
        "and 2 in both directions, 0 for each of x2x3|x1, x1x3|x2, x3|x1x2, x2|x1x3",
        paper="predicting two tokens from a third identifies discrete HMMs up to relabelling (Kruskal's theorem)",
        judge=rules.judge_deficiency,
        control=lab.Control(
            statement="with two equal columns of T each triple task is deficient", judge=rules.judge_deficiency_control
        ),
        unit="share of Jacobians",
        cells=("jacobian",),
    ),
    lab.Claim(
        id="C3",
        statement="A Gaussian HMM has one other solution with the same posterior, and its T is no transition matrix.",
        rule="Householder reflection of the means: posterior and predictor within 1e-12, column sums of the matching T "
        "within 1e-9 of -1, distance of parameters > 0.05",
        paper="theorem: x_2 | x_1 identifies a Gaussian HMM, since stochastic T excludes the reflection",
        judge=rules.judge_ghost,
        control=lab.Control(
            statement="reflections in random directions change the posterior by > 1e-3", judge=rules.judge_ghost_control
        ),
        unit="largest difference",
        cells=("ghost",),
    ),
    lab.Claim(
        id="C4",
        statement="Fits that match the exact predictor have its parameters: from x2|x1 for Gaussian HMMs, from "
        "triples, not from pairs, for discrete ones.",
        rule="random starts, converged where the mean squared difference is < 1e-18, at least 3 a task. Gaussian, "
        "x2|x1: errors < 1e-6, at least half converge. Discrete: 95 % lower bound of the median over models of the "
        "median error > 0.1 for gaps 1 and 2 in both directions; errors < 1e-4 for each triple task",
        paper="the theorems, which are about the population's optimal predictor",
        judge=rules.judge_recovery,
        control=lab.Control(
            statement="Gaussian, T unconstrained: converged fits sit at the truth and at the ghost, at least one each",
            judge=rules.judge_recovery_control,
        ),
        unit="distance",
        cells=("fit",),
    ),
    lab.Claim(
        id="C5",
        statement="Decomposing the sampled tensor x2x3|x1 gives the parameters at the rate of the square root of N.",
        rule="Jennrich's algorithm on well-separated models: 95 % interval of the mean exponent of the error in N "
        "within [-0.62, -0.38]",
        paper="the tensor has a unique decomposition, which Jennrich's algorithm finds",
        judge=rules.judge_samples,
        control=lab.Control(
            statement="two equal columns of O, where the decomposition is not unique: exponent > -0.15",
            judge=rules.judge_samples_control,
        ),
        unit="exponent",
        cells=("samples",),
    ),
]
