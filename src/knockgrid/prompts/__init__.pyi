from .facts import facts as facts
from .facts import same_answer as same_answer
from .read_prompts import read_prompts as read_prompts
from .forms import in_chat as in_chat
