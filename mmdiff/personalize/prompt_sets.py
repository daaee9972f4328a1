"""The sets that `mmdiff personalize sample --prompts` knows; {} is the concept.

`reconstruction` asks for the concept alone, in the words in which one is taught. `editability` asks for it in other
places, company, moods and materials; what music is asked for is what Plitsis et al. 2023 (arXiv 2309.11140) ask for, in
words of our own.
"""

from mmdiff.personalize.audio_recipe import TEMPLATES as MUSIC_TEMPLATES
from mmdiff.personalize.textual_inversion import TEMPLATES as IMAGE_TEMPLATES

IMAGE_OBJECT = (
    "a photo of {} on a beach",
    "a photo of {} in the snow",
    "a photo of {} in a forest in autumn",
    "a photo of {} on a city street at night",
    "a photo of {} on a wooden table",
    "a photo of {} in a kitchen",
    "a photo of {} on top of a mountain",
    "a photo of {} under water",
    "a photo of {} in heavy rain",
    "a photo of {} in front of a castle",
    "a photo of {} in a field of flowers",
    "a photo of {} seen from above",
    "a black and white photo of {}",
    "a photo of {} with a dog beside it",
    "an oil painting of {}",
    "a watercolour of {}",
    "a pencil drawing of {}",
    "a cartoon of {}",
    "a marble statue of {}",
    "a stained glass window that shows {}",
)
IMAGE_STYLE = (
    "a house by a lake in the style of {}",
    "a cat on a chair in the style of {}",
    "a mountain at sunrise in the style of {}",
    "a portrait of a woman in the style of {}",
    "an old man who reads in the style of {}",
    "a tree in winter in the style of {}",
    "a sailing boat in the style of {}",
    "a city at night in the style of {}",
    "a bowl of fruit in the style of {}",
    "a stone bridge in the style of {}",
    "a running horse in the style of {}",
    "a bicycle at a wall in the style of {}",
    "a castle on a hill in the style of {}",
    "a garden in spring in the style of {}",
    "a steam train in the style of {}",
    "a bird on a branch in the style of {}",
    "a table and two chairs in the style of {}",
    "a storm at sea in the style of {}",
    "children at play in the style of {}",
    "flowers in a vase in the style of {}",
)
MUSIC_OBJECT = (
    "jazz music with {}",
    "a rock song with {}",
    "a disco track with {}",
    "techno with {}",
    "heavy metal with {}",
    "{} played in a small room",
    "{} played in a cathedral",
    "{} heard from under water",
    "{} on an old gramophone record",
    "{} accompanied by drums",
    "{} accompanied by a string orchestra",
    "{} over a hip hop beat",
    "{} while rain falls",
    "{} in front of a cheering crowd",
    "{} outdoors while birds sing",
    "{} through a telephone",
    "a happy tune on {}",
    "a sad tune on {}",
    "a slow lullaby on {}",
    "a fast dance on {}",
)
MUSIC_STYLE = (
    "jazz in the style of {}",
    "a rock song in the style of {}",
    "a disco track in the style of {}",
    "techno in the style of {}",
    "heavy metal in the style of {}",
    "a band in a small room that plays in the style of {}",
    "an organ in a cathedral in the style of {}",
    "a song heard from under water in the style of {}",
    "an old gramophone record in the style of {}",
    "a drum solo in the style of {}",
    "a string orchestra in the style of {}",
    "a hip hop beat in the style of {}",
    "a piano while rain falls in the style of {}",
    "a concert with a cheering crowd in the style of {}",
    "a guitar outdoors in the style of {}",
    "a song through a telephone in the style of {}",
    "a happy tune in the style of {}",
    "a sad tune in the style of {}",
    "a slow lullaby in the style of {}",
    "a fast dance in the style of {}",
)
NAMES = ("reconstruction", "editability")
# (images or music, learnable_property) -> the sets by name
SETS = {
    ("image", "object"): {"reconstruction": IMAGE_TEMPLATES["object"], "editability": IMAGE_OBJECT},
    ("image", "style"): {"reconstruction": IMAGE_TEMPLATES["style"], "editability": IMAGE_STYLE},
    ("music", "object"): {"reconstruction": MUSIC_TEMPLATES["object"], "editability": MUSIC_OBJECT},
    ("music", "style"): {"reconstruction": MUSIC_TEMPLATES["style"], "editability": MUSIC_STYLE},
}
