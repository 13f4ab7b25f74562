"""What is compared with whom; each module holds the cases of some families."""

from tests.models.parity import decoders, encoders, layered, pairs

CASES = (*encoders.CASES, *decoders.CASES, *pairs.CASES, *layered.CASES)
