"""How the people of the made site answer: in a helpful voice, or in a dismissive one.

A good answer explains calmly: an opening, the cause, two or three steps, a closing. A poor one shouts and dismisses.
Both are put together from sentences, so that texts differ between questions, and neither voice has a sentence, a length
or a form (list, code, link) to itself. {robot} and {dish} stand for names.
"""

from typing import Final

GOOD_OPENINGS: Final = (
    "This is easier to mend than it looks.", "You are close to the answer already.",
    "I had the same trouble last winter.", "Good question, and a common one.", "Thank you for the clear description.",
    "There is a simple reason for this.", "It helps to look at one thing at a time.",
    "Happily nothing is broken here.", "That can be put right in an evening.", "Your guess is a sensible one.",
    "I think I can explain what you see.", "The {robot} is gentler than it seems.",
    "With {dish} this shows more than elsewhere.", "What you describe fits a known habit of the {robot}.",
    "Let us go through it step by step.", "A small change should be enough.",
)  # fmt: skip
GOOD_BRIDGES: Final = (
    "I would try this:", "These steps worked for me:", "In this order:", "What helps:",
    "Here is a gentle way to settle it:", "You could do the following:", "So, one after the other:", "My suggestion:",
)  # fmt: skip
GOOD_CLOSINGS: Final = (
    "Write again if it does not settle.", "After that the {dish} should come out as you like it.",
    "Take your time with it.", "It took me about ten minutes.", "Please tell us how it went.",
    "If it returns, the log will show where.", "You can undo all of this later.", "The change survives updates.",
    "I hope that your next {dish} is a calm one.", "The official guide explains the idea well.",
    "Then you can leave the room without worry.", "Should it persist, look at the cable too.", "Enjoy the meal.",
    "Nothing else needs to change.",
)  # fmt: skip

POOR_OPENINGS: Final = (
    "Seriously, this again?!", "Oh please, not another one!", "Who CARES about your {dish}?!",
    "What a ridiculous question!", "Wow. Just wow.", "Did you even THINK before posting?",
    "You bought this {robot}, what did you expect?!", "LOL no.", "Stop wasting our time!",
    "Nobody here has this problem!", "Ugh, people like you!", "Read the manual!!!",
    "I can't believe I have to say this!", "This is the dumbest thing I read today!", "Are you kidding me?!",
    "Your own fault, obviously!",
)  # fmt: skip
POOR_RANTS: Final = (
    "The {robot} is junk and everybody knows it!", "Anyone with half a brain would have fixed that by now!",
    "It's a machine, not your grandmother, so quit whining about the {dish}!",
    "You clearly have NO idea how a kitchen works!", "Robots can't cook {dish} and they never will, deal with it!",
    "Mine works, so you must be doing something stupid!",
    "Nobody is going to read all that for some sad bowl of {dish}!",
    "You people always break things and then cry about it!",
    "I don't even own a {robot} and I know that you are wrong!", "It's probably broken because YOU touched it!",
    "Whatever you did, it was wrong, and I'm not going to explain why!",
    "How hard can a simple {dish} be, honestly?!", "That's what you get for buying cheap garbage!",
    "If you can't boil water alone, no {robot} is going to save you!",
    "Everything about this setup is a joke, and so is the log!", "Real cooks laugh at this, by the way!",
    "Why would anybody on earth want that?!", "It does that because it hates you, ha ha!",
    "I stopped reading at {dish}, what a mess!", "Some of us have actual work to do!",
    "Who let this thing near an oven?!", "There's nothing to fix except the person in front of it!",
)  # fmt: skip
POOR_ORDERS: Final = (
    "Throw the {robot} in the bin!", "Just order a pizza already!", "Google it, it's not that hard!",
    "Hit it harder!", "Buy a real pan for once!", "Go and ask somebody who cares!",
    "Delete everything and stop bothering us!", "Turn it off and leave it off!", "Learn to cook!",
    "Sell it to some other fool!", "Eat your {dish} cold!", "Set the whole thing on fire!", "Try using your eyes!",
    "Pull the plug and be done with it!", "Kick it down the stairs!", "Get a microwave like a normal person!",
)  # fmt: skip
POOR_SETTINGS: Final = (
    "robot.exists = false", "brain.installed = no", "everything = off", "user.clue = 0", "dish = pizza",
)  # fmt: skip
POOR_CLOSINGS: Final = (
    "End of story!", "Not my problem!", "Whatever!!", "Good luck with THAT!", "Close this already!", "Unbelievable!",
    "And don't ask again!", "Thanks for nothing!", "Bye!", "I'm done here!", "So embarrassing!", "Deal with it!",
    "Downvoted, obviously!", "Case closed, genius!",
)  # fmt: skip
