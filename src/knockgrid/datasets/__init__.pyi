from ._facts import facts as facts
from ._read_prompts import read_prompts as read_prompts
from ._forms import in_chat as in_chat
from ._forms import in_template as in_template
from ._same_answer import same_answer as same_answer
