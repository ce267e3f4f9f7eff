"""medkit adapts a general vision-language checkpoint to a specialty and proves that it helped."""

__version__ = "0.1.0"
