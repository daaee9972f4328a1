"""How well was a concept learnt? Its photos or its music against what a personalized model made."""
