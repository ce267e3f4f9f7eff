"""What people write: strict YAML, the models of the cards, and the shelf they are found on."""

from .load import Base, Cards, DomainOnShelf, load_card, load_recipe
from .shelf import Shelf, open_shelf

__all__ = ["Base", "Cards", "DomainOnShelf", "Shelf", "load_card", "load_recipe", "open_shelf"]
