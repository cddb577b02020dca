"""The template of what only the controller can state, for `atoll-client report --statement`.

    QUESTIONS ─template→ a TOML file of marked blanks ─filled in→ --statement FILE → the report

What is left blank stands in the report as "to be stated by the controller".
"""

from __future__ import annotations

import textwrap

BLANK = "[FILL IN]"
QUESTIONS = {  # by the key in the file: the question, and where a law or guideline asks it
    "controller": "Who decides on purposes and means: name and contact; joint controllers and"
    " representative if there are any. (GDPR Art. 30(1)(a))",
    "officer": "Who answers for data protection: name and contact of the data protection officer,"
    " or of the person in charge of personal information protection. (GDPR Art. 30(1)(a), 37;"
    " PIPL Art. 52)",
    "lawfulness": "The legal basis, with the legitimate interest where it is the basis, and why the"
    " processing is necessary for its purpose and proportionate to it. (GDPR Art. 6, 35(7)(a), (b);"
    " PIPL Art. 13, 56(1))",
    "sensitive": "Whether Histories here tell sensitive things, such as health or belief, or are of"
    " children. (GDPR Art. 9, 30(1)(c); PIPL Art. 28, 55(1))",
    "automated_decisions": "What is decided automatically with the ranking, and how a shopper can"
    " switch it off. (GDPR Art. 22, 35(3)(a); PIPL Art. 24, 55(2))",
    "recipients": "Who runs the coordinator's server and who else receives something, and on what"
    " contract. (GDPR Art. 28, 30(1)(d); PIPL Art. 21, 23, 55(3))",
    "cross_border": "Whether the server or a recipient is in another country, and which safeguards"
    " apply. (GDPR Art. 30(1)(e), 44-49; PIPL Art. 38-39, 55(4))",
    "other_impact": "Any other major influence on shoppers. (PIPL Art. 55(5))",
    "rights_and_risks": "The risks to the rights and freedoms of shoppers: their likelihood and"
    " severity. (GDPR Art. 35(7)(c); PIPL Art. 56(2))",
    "measures": "Whether the measures that the report lists are enough for these risks, and what is"
    " done beyond them. (GDPR Art. 32, 35(7)(d); PIPL Art. 51, 56(3))",
    "access_control": "Who may read the rows, the Ledger and the keys, and how that is enforced."
    " (GDPR Art. 30(1)(g), 32; NIST SP 800-226)",
    "row_retention": "How long the platform keeps its rows, and when they are deleted. (GDPR Art."
    " 5(1)(e), 30(1)(f); PIPL Art. 19)",
    "erasure_requests": "How a shopper asks for erasure, who checks the identity, and by when it is"
    " answered. (GDPR Art. 12(3), 17; PIPL Art. 47, 50)",
    "erasure_elsewhere": "How backups, other copies, processors and recipients are reached when a"
    " shopper is erased. (GDPR Art. 17(2), 19; PIPL Art. 47)",
    "assessment_needed": "Whether an impact assessment is needed before this processing, and why or"
    " why not. (GDPR Art. 35(1), (3), (4))",
    "officer_advice": "What the data protection officer advised. (GDPR Art. 35(2))",
    "shoppers_views": "The views of shoppers or of who speaks for them, or why they were not asked."
    " (GDPR Art. 35(9))",
    "records": "Where this report and the records of erasures are kept, for how long, and when the"
    " report is made again. (GDPR Art. 30(3), 35(11); PIPL Art. 56: three years at least)",
}
_HEAD = f"""# Statements of the controller for the privacy report of Atoll.
#
# Write each text in place of {BLANK}; it may have several lines. A blank that is left stands in the
# report as "to be stated by the controller". Then:
#
#     atoll-client report --platform boutique.toml --statement THIS_FILE
#
# The articles are named for orientation. This is no legal advice.
"""


def template() -> str:
    """The file, with a marked blank for each key."""
    blocks = [_HEAD]
    for name, question in QUESTIONS.items():
        asked = textwrap.fill(question, 98, initial_indent="# ", subsequent_indent="# ")
        blocks.append(f"{asked}\n{name} = '''\n{BLANK}\n'''\n")
    return "\n".join(blocks)
