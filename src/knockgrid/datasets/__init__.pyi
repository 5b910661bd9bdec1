from ._facts import facts as facts
from ._read_prompts import read_prompts as read_prompts
