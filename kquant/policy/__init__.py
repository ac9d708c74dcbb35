"""Which type each tensor gets, and why: pure functions of names, shapes and facts of the model."""

from kquant.policy.decide import Decision, PolicyOptions, TensorFacts, decide, needs_imatrix
from kquant.policy.model_facts import ModelFacts

__all__ = ["Decision", "ModelFacts", "PolicyOptions", "TensorFacts", "decide", "needs_imatrix"]
