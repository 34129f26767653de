"""`--explain`: how a model would be served, or all that stands in the way, found by the functions that serve it."""

from .explanation import Explanation
from .problems import Problems
from .survey import explain

__all__ = ["Explanation", "Problems", "explain"]
