"""What inspection finds in requests as programs lay them out: wrapped, in tool loops, beside the user's, to fill in."""

from typing import Any

import pytest

from paceline.inspection import inspect
from paceline.inspection.loop import Turn
from paceline.inspection.tasks import IN_LOOP
from paceline.types import Api, Request, Signals, Task

KEY = b"k" * 32
CODE = "def add(left, right):\n    return left + right\n"
FILE_TOOLS = [{"name": name} for name in ("Bash", "Read", "Edit", "Grep")]
SHOP_TOOLS = [{"type": "function", "function": {"name": name}} for name in ("get_order", "cancel_order", "send_mail")]
POLICY = "You serve the customers of a shop. " + "Orders can be cancelled within a day, unless they were sent. " * 40
REMINDER = "<system-reminder>\nYour list of things to do is empty. Do not mention this.\n</system-reminder>"
DETAILS = "<environment_details>\n# Open tabs\nsrc/app.py\n# Time\n10:00\n</environment_details>"


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def look(*messages: dict[str, Any], system: str = "", api: Api = Api.OPENAI_CHAT, **fields: Any) -> Signals:
    begun = [{"role": "system", "content": system}] if system else []
    return inspect(Request(api, "/v1/chat/completions", b"", {"messages": [*begun, *messages], **fields}), KEY)


def prompt(text: str, path: str = "/v1/completions", **fields: Any) -> Signals:
    return inspect(Request(Api.OPENAI_COMPLETIONS, path, b"", {"prompt": text, **fields}), KEY)


INSTRUCTION = "Translate this sentence into French: the train leaves at eight."


MINUTES = "The board met at noon. The rent of the hall goes up by a tenth.\n" * 2000


@pytest.mark.parametrize(
    "goodbye",
    [
        "Many thanks!",
        "Thank you so much for your help\nMarta",
        "Best regards,\nJo",
        "Danke im Voraus!",
        "\n\nCheers\n\n",
    ],
)
@pytest.mark.parametrize("given", [MINUTES[:3000], MINUTES])
def test_what_is_asked_stands_before_thanks_and_greetings(given: str, goodbye: str) -> None:
    asked = f"{given}\n\nTranslate the minutes above into Spanish.\n\n{goodbye}"
    assert look(user(asked)).task is Task.TRANSLATE


@pytest.mark.parametrize(
    "asked",
    [
        f"{MINUTES[:2000]}\n\nGive back the complete minutes with every 'hall' replaced by 'room'.",
        f"Print the whole class again with left and right renamed to x and y:\n{CODE * 10}",
    ],
)
def test_all_of_it_with_something_replaced_is_an_edit(asked: str) -> None:
    assert look(user(asked)).task is Task.EDIT


def test_thanks_that_are_more_than_a_courtesy_are_read() -> None:
    assert look(user(f"{MINUTES}\n\nThanks, now translate it into Dutch.")).task is Task.TRANSLATE
    assert look(user("thanks!")).task is Task.CHAT


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": INSTRUCTION}, {"type": "text", "text": DETAILS}],
        [{"type": "text", "text": REMINDER}, {"type": "text", "text": INSTRUCTION}, {"type": "text", "text": REMINDER}],
        f"{INSTRUCTION}\n\n{REMINDER}",
        f"<task>\n{INSTRUCTION}\n</task>\n{DETAILS}",
        f"<context>\nThe user looks at src/app.py.\n</context>\n<user_query>\n{INSTRUCTION}\n</user_query>",
        f"### Task:\n{INSTRUCTION}\n"
        "### Guidelines:\n- Be exact.\n### Chat History:\n<chat_history>\nUSER: x\n</chat_history>",
        f"# Question: {INSTRUCTION}\n\n# Relevant docs:\n\n<doc>\nHow to write a function.\n</doc>",
        f"<environment_context>\n{'x' * 60_000}\n</environment_context>\n{INSTRUCTION}",
    ],
)
def test_the_instruction_is_found_in_its_wrappings(content: Any) -> None:
    signals = look(user(content))
    assert signals.task is Task.TRANSLATE
    assert signals.turns == 1


@pytest.mark.parametrize(
    "text",
    [
        f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n",
        f"[INST] {INSTRUCTION} [/INST]",
        f"Below is an instruction.\n\n### Instruction:\n{INSTRUCTION}\n\n### Response:\n",
    ],
)
def test_the_instruction_is_found_in_a_chat_template(text: str) -> None:
    assert prompt(text).task is Task.TRANSLATE


@pytest.mark.parametrize("text", ["</environment_details>", "qwzx vbnm plok", "Γράψε μου κάτι", "", "ok " * 3 + "zzz"])
def test_what_cannot_be_told_is_not_called_a_translation(text: str) -> None:
    assert look(user(text)).tasks.get(Task.TRANSLATE, 0.0) < 0.2


@pytest.mark.parametrize("text", ["qwzx vbnm plok", "xkcd frobnicate zqx", "</environment_details>"])
def test_unknown_words_are_an_unknown_task(text: str) -> None:
    assert look(user(text)).task is Task.UNKNOWN


@pytest.mark.parametrize(
    ("system", "task"),
    [
        ("You are an interpreter. Translate whatever the user writes into Polish.", Task.TRANSLATE),
        ("Summarise the text that the user sends in two sentences.", Task.SUMMARISE),
        ("Correct the spelling and grammar of the user's text and return only the corrected text.", Task.EDIT),
        ("Extract all names and amounts from the user's message and return them as JSON.", Task.EXTRACT),
    ],
)
def test_the_task_may_stand_in_the_system_prompt(system: str, task: Task) -> None:
    assert look(user("We met Ann in Oslo on Monday; she owes us 40 euros for the boat."), system=system).task is task


def test_a_system_prompt_that_only_says_who_answers_asks_for_nothing() -> None:
    assert look(user(INSTRUCTION), system="You are a helpful assistant.").task is Task.TRANSLATE
    assert look(user("Write a poem about rain."), system="You are Ada, an AI assistant.").task is Task.CREATE


def test_tools_that_are_offered_are_not_always_called() -> None:
    assert look(user("Thanks, that's all!"), tools=SHOP_TOOLS).task is Task.CHAT
    assert look(user("Write a long poem about the autumn sea."), tools=SHOP_TOOLS).task is Task.CREATE
    assert look(user("Cancel order 4711 please."), tools=SHOP_TOOLS).task is Task.TOOL_CALL
    later = (user("I have a question."), assistant("Which order is it?"), user("It is #W48213."))
    assert look(*later, tools=SHOP_TOOLS, system=POLICY).task is Task.TOOL_CALL


def test_a_schema_is_not_always_extraction() -> None:
    schema = {"type": "json_schema", "json_schema": {"schema": {"properties": {"answer": {}}}}}
    assert look(user("Write a story about a fox in three chapters."), response_format=schema).task is Task.CREATE
    assert look(user("Jane, 34, Oslo; Tom, 28, Rome"), response_format=schema).task is Task.EXTRACT


def called(name: str, result: str, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    call = {"id": "1", "type": "function", "function": {"name": name, "arguments": "{}"}}
    return assistant(None, tool_calls=[call]), {"role": "tool", "tool_call_id": "1", "content": result, **fields}


@pytest.mark.parametrize(
    ("name", "result", "turn"),
    [
        ("Read", CODE * 40, Turn.READ),
        ("Edit", "The file was updated.", Turn.WROTE),
        ("Bash", "total 8\n-rw-r--r-- 1 app app 120 app.py", Turn.RAN),
        ("Bash", "12 passed in 0.4 s", Turn.PASSED),
        ("Bash", "compiling\n" * 500 + "Build successful", Turn.PASSED),
        ("Bash", "2 failed, 10 passed\nTraceback (most recent call last):", Turn.FAILED),
        ("apply_patch", "Error: the context did not match", Turn.NOT_WRITTEN),
        ("get_order", "{}", Turn.READ),
        ("cancel_order", '{"status": "cancelled"}', Turn.WROTE),
    ],
)
def test_the_place_in_a_tool_loop_is_told(name: str, result: str, turn: Turn) -> None:
    instruction = user("Add a --json flag to the export command.")
    assert look(instruction, *called(name, result), tools=FILE_TOOLS).turn == turn
    block = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": result}]}
    use = {"type": "tool_use", "id": "1", "name": name, "input": {}}
    anthropic = (instruction, assistant([use]), user([block, {"type": "text", "text": REMINDER}]))
    assert look(*anthropic, tools=FILE_TOOLS, api=Api.ANTHROPIC_MESSAGES).turn == turn
    items = [instruction, {"type": "function_call", "name": name}, {"type": "function_call_output", "output": result}]
    responses = Request(Api.OPENAI_RESPONSES, "/v1/responses", b"", {"input": items, "tools": FILE_TOOLS})
    assert inspect(responses, KEY).turn == turn


@pytest.mark.parametrize(
    ("asked", "task"),
    [
        ("Write a limerick about a parrot, please.", Task.CREATE),
        ("Explain why the sea is salty.", Task.ANSWER),
        (f"Print the whole class again with left and right renamed to x and y:\n{CODE * 10}", Task.EDIT),
    ],
)
def test_a_later_wish_to_an_agent_that_is_clear_outvotes_its_tools(asked: str, task: Task) -> None:
    begun = (user("Add a --json flag to the export command."), assistant("It is there."))
    signals = look(*begun, user(asked), tools=FILE_TOOLS)
    assert signals.task is task
    assert signals.tasks[Task.TOOL_CALL] > 0.1


def test_after_tests_have_passed_a_call_is_less_likely_than_before() -> None:
    begun = (user("Add a --json flag to the export command."), *called("Edit", "The file was updated."))
    before = look(*begun, tools=FILE_TOOLS)
    after = look(*begun, *called("Bash", "12 passed in 0.4 s"), tools=FILE_TOOLS)
    assert after.tasks[Task.TOOL_CALL] < before.tasks[Task.TOOL_CALL]
    assert after.tasks[Task.SUMMARISE] > before.tasks[Task.SUMMARISE]


def test_the_likeliest_task_stands_first_in_every_turn() -> None:
    for turn, shares in IN_LOOP.items():
        assert list(shares.values()) == sorted(shares.values(), reverse=True), turn
        assert sum(shares.values()) == pytest.approx(1)


def test_tools_are_called_in_the_text_of_answers_too() -> None:
    system = "You work in a shell. COMMANDS: open, edit, submit. You can use the following tools. " + "Rules. " * 300
    begun = (user("The date is parsed wrongly, see the issue below."), assistant("I look.\n```\nopen dates.py\n```"))
    read = look(*begun, user("[File: dates.py (40 lines)]\n1:import re\n(Open file: dates.py)\nbash-$"), system=system)
    assert (read.turn, read.task) == (Turn.READ, Task.TOOL_CALL)
    empty = (user("Fix it."), assistant("First a script.\n```\ncreate try.py\n```"), user("[File: try.py]\n1:\nbash-$"))
    assert look(*empty, system=system).task is Task.EDIT
    tags = (user("<task>\nrename it\n</task>"), assistant("<read_file>\n<path>a.py</path>\n</read_file>"))
    result = [{"type": "text", "text": f"[read_file for 'a.py'] Result:\n\n{CODE}"}, {"type": "text", "text": DETAILS}]
    assert look(*tags, user(result), system=system).turn == Turn.READ


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Write a title of at most five words for this conversation.\nUser: how do I bake bread?", Task.SUMMARISE),
        ("### Task:\nGive 1-3 tags for the chat below.\n<chat_history>\nUSER: bread?\n</chat_history>", Task.EXTRACT),
        ("### Task:\nSuggest three follow-up questions for this chat.\n### Chat:\nUSER: bread?", Task.CREATE),
    ],
)
def test_calls_beside_the_users_own_are_known(text: str, task: Task) -> None:
    assert look(user(text)).task is task


@pytest.mark.parametrize(
    "signals",
    [
        prompt("<|fim_prefix|>def add(a, b):\n<|fim_suffix|>\n<|fim_middle|>"),
        prompt("<PRE> def add(a, b): <SUF> return c <MID>"),
        prompt("<｜fim▁begin｜>def add(<｜fim▁hole｜>)<｜fim▁end｜>"),
        prompt("def add(a, b):\n", suffix="\n    return c\n"),
        prompt("x = 1\n" * 30_000 + "<fim_suffix>\n<fim_middle>"),
        prompt("", path="/infill", input_prefix="def add(", input_suffix=")"),
        look(user("Complete at the cursor:\n<|code_prefix|>x = <|cursor|>")),
    ],
)
def test_what_is_to_be_filled_in_is_code(signals: Signals) -> None:
    assert (signals.tasks, signals.evidence) == ({Task.CODE: 1.0}, "infill")


def test_a_base_model_goes_on_with_a_text() -> None:
    story = "Once upon a time, in a village by the sea, there lived an old fisherman who"
    assert (prompt(story).task, prompt(story).turn) == (Task.CREATE, Turn.PROMPT)
    assert prompt("import re\n\n\ndef words(text: str) -> list[str]:\n    return").task is Task.CODE


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Écris un poème sur la neige.", Task.CREATE),
        ("Traduce esta frase al inglés: el perro duerme.", Task.TRANSLATE),
        ("Почему трава зелёная?", Task.ANSWER),
        ("用Python写一个函数，计算两个数的和。", Task.CODE),
        ("次の文章を要約してください。\n海の水は塩辛い。\n昔から人は海の水で塩を作ってきた。", Task.SUMMARISE),
        ("다음 문장을 영어로 번역해 줘: 오늘은 날씨가 좋아요.", Task.TRANSLATE),
    ],
)
def test_other_languages_and_scripts_are_understood(text: str, task: Task) -> None:
    assert look(user(text)).task is task


@pytest.mark.parametrize(
    ("system", "agent"),
    [
        ("You are Claude Code, a command line tool.", "claude-code"),
        ("You are Cline, a skilled engineer.", "cline"),
        ("You are Roo, a software engineer.", "roo-code"),
        ("You are a coding assistant that works in Cursor.", "cursor"),
        ("You are OpenHands agent.", "openhands"),
        ("You are a proofreading assistant; no grooming.", ""),
        ("You know all about the decline of Rome.", ""),
        ("Move the cursor to the line. Cursor keys work.", ""),
        ("You play in a classroom, with a raider and a codex.", ""),
    ],
)
def test_agents_are_known_by_their_whole_names(system: str, agent: str) -> None:
    assert look(user("hi"), system=system).agent == agent


def test_conversations_that_begin_alike_are_kept_apart() -> None:
    system = "You edit files. " * 10
    example = [user("Change add() to use sum."), assistant("I edit app.py:\n...")]
    setup = [*example, user("That was an example; forget it."), assistant("Ok.")]
    files = [user(f"These are the files:\n{CODE}"), assistant("Ok, I know them.")]

    def talk(*messages: dict[str, Any]) -> str:
        return look(*setup, *messages, system=system).conversation

    first = talk(*files, user("Rename add to plus."))
    assert first != talk(*files, user("Why is it slow?"))
    done = (user("Rename add to plus."), assistant("Done: ..."))
    assert first == talk(*done, *files, user("Now minus."))
    reminded = [look(user([{"type": "text", "text": REMINDER}, {"type": "text", "text": text}])) for text in ("a", "b")]
    assert reminded[0].conversation != reminded[1].conversation
    titles = [
        f"### Task:\nWrite a title.\n### Rules:\n{'- Be brief.' * 99}\nUSER: {text}" for text in ("bread", "rain")
    ]
    assert look(user(titles[0])).conversation != look(user(titles[1])).conversation


def test_an_application_is_known_by_what_stays_the_same() -> None:
    one = look(user("hi"), tools=SHOP_TOOLS, system=POLICY).application
    later = (user("hi"), assistant("yes?"), user("Where is my order?"))
    assert one == look(*later, tools=SHOP_TOOLS, system=POLICY).application
    others = [
        look(user("hi"), tools=SHOP_TOOLS[:2], system=POLICY),
        look(user("hi"), tools=SHOP_TOOLS, system="You are a shop."),
        look(user("hi"), tools=SHOP_TOOLS),
        look(user("hi"), json_schema={"properties": {"a": {}}}),
        look(user("hi"), json_schema={"properties": {"b": {}}}),
        prompt("", path="/infill", input_prefix="x"),
    ]
    assert len({one, *(signals.application for signals in others)}) == len(others) + 1
    assert look(user("hi")).application == "", "nothing tells"
    keyed = inspect(Request(Api.OPENAI_CHAT, "/", b"", {}, headers=((b"authorization", b"Bearer a"),)), KEY)
    assert keyed.application
    assert "shop" not in one
