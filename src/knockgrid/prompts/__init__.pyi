from .facts import facts as facts
from .read_prompts import read_prompts as read_prompts
from .forms import in_chat as in_chat
from .forms import in_template as in_template
from .same_answer import same_answer as same_answer
