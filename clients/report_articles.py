"""What laws and guidelines ask, what a privacy report shows for it, what the controller adds.

    figures, statement ─articles→ tables of rows: article, asks, evidence, controller

Of GDPR Articles 17, 30 and 35, of PIPL Articles 47, 55 and 56, and of NIST SP 800-226. What they
ask is summarised for orientation; only the texts themselves count. This is no legal advice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]
Row = dict[str, str]
NO_ADVICE = (
    "This report describes software and its figures. It is no legal advice, and does not by itself"
    " make processing lawful: a lawyer or the data protection officer has to judge that."
)


def articles(found: Facts, told: Facts) -> dict[str, list[Row]]:
    """The three tables.

    Args:
        found: the figures of a report, and the controller's statement.
        told: its sentences: claim, what is done, what it does not cover.
    """
    return {
        "GDPR_Articles_17_30_and_35": _gdpr(found, told),
        "PIPL_Articles_47_55_and_56": _pipl(found, told),
        "NIST_SP_800-226": _nist(found, told),
    }


def _row(article: str, asks: str, evidence: str, controller: str) -> Row:
    return {"article": article, "asks": asks, "evidence": evidence, "controller": controller}


def _protected(told: Facts) -> bool:
    return told["status"] in ("protected", "over budget", "nothing released")


def _erasures(found: Facts) -> str:
    """What the records of erasures show."""
    held = found["erasures"]
    if not held["records"]:
        return "No erasure has been recorded yet. atoll-client erase records each, signed."
    left = held["not_complete"]
    open_ = f" The last one is NOT complete: record {left[0]}." if left else ""
    return (
        f"Signed records of erasures: {held['records']}; shoppers on the erasure list:"
        f" {held['shoppers']}; the last at {held['last']}.{open_} Each names files, rows,"
        " digests and the releases that cannot be undone."
    )


def _measures(found: Facts) -> str:
    if found["plan"] is None:
        return "None by this software: the platform's file says unprotected."
    return (
        "Rows stay on the platform. Differential privacy with a fixed Plan, a Ledger that counts"
        " every release, one door with a list of what may leave, approved code only, TLS, signed"
        " requests, audit logs."
    )


def _gdpr(found: Facts, told: Facts) -> list[Row]:
    stated, done = found["statement"], told["what_is_done"]
    return [
        _row(
            "17(1) right to erasure",
            "Erase a person's data without undue delay where one of the grounds (a) to (f) applies;"
            " answer within one month (Art. 12(3)).",
            _erasures(found) + " From the moment a shopper is on the list no later round, count or"
            " model uses the rows.",
            f"How requests come in, who checks them and by when: {stated['erasure_requests']}",
        ),
        _row(
            "17(2) and 19 others who have the data",
            "Take reasonable steps to tell controllers to whom it was made public, and each"
            " recipient, unless that is impossible or takes disproportionate effort.",
            "Recipients get no rows. "
            + (
                "What they got before is noised, cannot be undone, and its influence is bounded by"
                " ε and δ."
                if _protected(told)
                else "What they got before is not protected and cannot be undone."
            ),
            f"Other copies, backups, processors: {stated['erasure_elsewhere']}",
        ),
        _row(
            "17(3) exceptions",
            "Erasure may be refused as far as processing is necessary for the purposes listed, such"
            " as a legal obligation or legal claims.",
            "None is used by this software. The erasure list and the records are kept to show that"
            " a request was carried out (Art. 5(2)).",
            "Whether an exception applies to the platform's own records, such as invoices.",
        ),
        _row(
            "30(1)(a) controller",
            "Name and contact of controller, joint controller, representative, data protection"
            " officer.",
            f"Platform {found['platform']}, data set {found['dataset']}.",
            f"Controller: {stated['controller']}; officer: {stated['officer']}",
        ),
        _row(
            "30(1)(b) purposes",
            "The purposes of the processing.",
            done["purpose"],
            f"Legal basis (Art. 6) and purposes beyond it: {stated['lawfulness']}",
        ),
        _row(
            "30(1)(c) categories",
            "Categories of data subjects and of personal data.",
            "Shoppers of the platform. Columns that are read: "
            + ", ".join(found["columns"]["events"])
            + ".",
            f"Special categories (Art. 9), children: {stated['sensitive']}",
        ),
        _row(
            "30(1)(d), (e) recipients, third countries",
            "Categories of recipients, and transfers to third countries with their safeguards.",
            "The coordinator's server gets Updates, sums where the file allows them"
            + (", and noised metrics" if found["share_metrics"] else "")
            + "; no rows.",
            f"Recipients: {stated['recipients']}; transfers: {stated['cross_border']}",
        ),
        _row(
            "30(1)(f) time limits",
            "Where possible, the time limits for erasure of each category.",
            "See retention in this report.",
            f"How long the platform keeps its rows: {stated['row_retention']}",
        ),
        _row(
            "30(1)(g) security",
            "Where possible, a general description of the measures of Art. 32(1).",
            _measures(found),
            f"Access to rows, Ledger and keys: {stated['access_control']}",
        ),
        _row(
            "35(1), (3) is an assessment needed?",
            "A data protection impact assessment before processing that is likely to result in a"
            " high risk, in particular extensive profiling with legal or similar effects, or"
            " special categories on a large scale.",
            "Nothing here decides it. The facts for it: items are ranked for a shopper from the"
            " shopper's own History.",
            f"The decision and its reasons: {stated['assessment_needed']}",
        ),
        _row(
            "35(2), (9) advice and views",
            "Advice of the data protection officer; where appropriate, the views of data subjects.",
            "None: people have to give them.",
            f"Advice: {stated['officer_advice']}; views: {stated['shoppers_views']}",
        ),
        _row(
            "35(7)(a) description",
            "A systematic description of the processing and its purposes.",
            "What is done, data categories, plan, releases and retention in this report.",
            f"Legitimate interest, where it is the basis: {stated['lawfulness']}",
        ),
        _row(
            "35(7)(b) necessity and proportionality",
            "An assessment of necessity and proportionality.",
            "Rows do not move; only what is named here leaves, with noise that is paid for from a"
            " budget."
            if found["plan"]
            else "Rows do not move; what leaves is not protected.",
            f"The assessment: {stated['lawfulness']}",
        ),
        _row(
            "35(7)(c) risks",
            "An assessment of the risks to the rights and freedoms of data subjects.",
            f"{told['in_plain_words']} See what the claim does not cover.",
            f"The assessment: {stated['rights_and_risks']}",
        ),
        _row(
            "35(7)(d) measures",
            "Measures that address the risks and show compliance.",
            _measures(found) + " This report is signed.",
            f"Whether they are enough: {stated['measures']}",
        ),
        _row(
            "35(11) review",
            "A review at least when the risk changes.",
            "A new report shows every change of Plan, budget, releases and erasures.",
            f"When it is made again, and where it is kept: {stated['records']}",
        ),
    ]


def _pipl(found: Facts, told: Facts) -> list[Row]:
    stated, done = found["statement"], told["what_is_done"]
    return [
        _row(
            "47 deletion",
            "Delete on one's own initiative or on request where one of its cases applies. Where"
            " deletion is technically hard to realise, stop all processing but storage and"
            " necessary protection.",
            _erasures(found),
            f"Requests (Art. 50): {stated['erasure_requests']}; copies:"
            f" {stated['erasure_elsewhere']}",
        ),
        _row(
            "55(1) sensitive personal information",
            "An impact assessment before sensitive personal information is handled.",
            "Not known to this software.",
            stated["sensitive"],
        ),
        _row(
            "55(2) automated decision-making",
            "An impact assessment before personal information is used for it.",
            "Items are ranked for a shopper from the shopper's own History.",
            stated["automated_decisions"],
        ),
        _row(
            "55(3) entrusting, providing, publishing",
            "An impact assessment before handling is entrusted to others, or information is"
            " provided to them or disclosed.",
            "No rows leave; Updates of an Adapter, and sums if [sums] is set, go to a server.",
            stated["recipients"],
        ),
        _row(
            "55(4) providing across the border",
            "An impact assessment before personal information is provided abroad.",
            "Not known to this software: it depends on where the server is.",
            stated["cross_border"],
        ),
        _row(
            "55(5) other major influence on individuals",
            "An impact assessment of other handling with a major influence on individuals.",
            "None is known to this software.",
            stated["other_impact"],
        ),
        _row(
            "56(1) purpose and manner",
            "Whether purpose and manner are lawful, legitimate and necessary.",
            done["purpose"],
            stated["lawfulness"],
        ),
        _row(
            "56(2) influence and risks",
            "The influence on rights and interests, and the security risks.",
            f"{told['claim']} See what it does not cover.",
            stated["rights_and_risks"],
        ),
        _row(
            "56(3) measures",
            "Whether the measures are lawful, effective and fit the degree of risk.",
            "Plan, Ledger and any audit, as told here." if found["plan"] else _measures(found),
            stated["measures"],
        ),
        _row(
            "56 records",
            "Keep the assessment's report and the records of handling for three years at least.",
            "This report and the records of erasures are files of the platform.",
            stated["records"],
        ),
    ]


def _nist(found: Facts, told: Facts) -> list[Row]:
    budget, done = found["budget"], told["what_is_done"]
    bounded, plan = _protected(told), found["plan"]
    nothing = "nothing beyond it"
    figures = told["figures"]
    metrics = (
        "metrics leave, noised under a Plan" if found["share_metrics"] else "metrics do not leave"
    )
    rows = [
        (
            "Privacy parameter ε",
            "How large it is, and for what.",
            f"at most {figures['spent']} of {figures['budget']}"
            if bounded
            else "none: nothing is promised",
            nothing,
        ),
        (
            "Variant and δ",
            "Which definition is meant, and how large its δ is.",
            f"(ε, δ), δ = {budget['delta']:.6g}" if bounded else "none",
            "that δ is far below 1 divided by the true number of shoppers",
        ),
        (
            "Unit of privacy",
            "Whether an event or all of a person is one record.",
            done["unit_of_privacy"],
            "that one person has one identifier",
        ),
        (
            "Bounded or unbounded",
            "How neighbouring data sets differ.",
            done["neighbouring_relation"],
            nothing,
        ),
        (
            "Composition",
            "How several releases add up.",
            f"{found['accounting']}; every release counts, of every run",
            "that the Ledger was never replaced by an older copy",
        ),
        (
            "Mixing with other releases",
            "What else is released of the same data.",
            "what else the platform publishes is not counted",
            "what else it publishes of the same shoppers",
        ),
        (
            "Algorithm",
            "Which mechanism is used.",
            "DP-SGD: Poisson sampling of shoppers, one gradient a History, clipped, with Gaussian"
            " noise; sums, if any: a Laplace mechanism, L1 norm 1 a History"
            if plan
            else "training without clipping or noise",
            nothing,
        ),
        (
            "Utility",
            "What the result is good for.",
            "not told here; atoll-sim compare measures it with and without noise",
            "what use the recommendations are",
        ),
        (
            "Bias",
            "Whom the noise harms.",
            "clipping and noise cost rare tastes and few shoppers most; not measured here",
            "which groups of shoppers are served worse",
        ),
        (
            "Query model",
            "Who may ask what.",
            f"rounds asked for by a server, which cannot loosen the Plan; {metrics}",
            nothing,
        ),
        (
            "Trust model",
            "Who is trusted with rows, and who is the adversary.",
            f"Each platform answers for itself. {done['threat_model']}",
            "who operates the platform's machine",
        ),
        (
            "Mechanism implementation",
            "Randomness, and attacks on floating point.",
            done["randomness"],
            nothing,
        ),
        (
            "Side channels",
            "What time, size or failure of a reply tells.",
            told["what_the_claim_does_not_cover"][2],
            "who can measure the machine",
        ),
        (
            "Data security and access control",
            "Who can reach rows and secrets.",
            "ledger, keys, caches and records are files for their owner alone",
            found["statement"]["access_control"],
        ),
        (
            "Data collection exposure",
            "What happens to rows before the mechanism.",
            "rows stay where they were collected, and only the columns named here are read; their"
            " collection is outside the claim",
            "how rows are collected",
        ),
    ]
    return [_row(*row) for row in rows]
