# ruff: noqa: E501
"""What the picture-book world can show: nouns (with their emoji), colours, backgrounds and styles.

Names and synonyms follow the CLDR English annotations, edited by hand so that every name is what a person would type
and no two nouns share one. The first `FREQUENT` nouns are the vocabulary of small models; order therefore matters.
"""

from __future__ import annotations

from dataclasses import dataclass

FREQUENT = 132

# One noun an entry: emoji, name, synonyms, separated by "/". A name that starts with "~" is a plural and takes no article.
_TABLE = """
🐼 panda/panda bear; 🐶 dog/puppy/hound; 🐱 cat/kitten/kitty; 🦊 fox; 🐯 tiger; 🦁 lion; 🐮 cow; 🐷 pig/piglet/hog; 🐸 frog/toad;
🐵 monkey/chimp; 🐔 chicken/hen; 🐧 penguin; 🦆 duck; 🦉 owl; 🐴 horse/pony; 🦄 unicorn; 🐝 bee/honeybee; 🦋 butterfly; 🐌 snail;
🐞 ladybug/ladybird; 🐢 turtle/tortoise; 🐍 snake/serpent; 🐙 octopus; 🦀 crab; 🐠 fish/tropical fish; 🐬 dolphin; 🐳 whale; 🐘 elephant;
🦒 giraffe; 🐑 sheep/ewe; 🐰 rabbit/bunny; 🐻 bear; 🐨 koala; 🐭 mouse; 🦖 dinosaur/T-Rex; 🌵 cactus; 🎄 Christmas tree; 🌲 pine tree/evergreen tree;
🌴 palm tree/palm; 🍁 maple leaf; 🍄 mushroom/toadstool; 🌷 tulip; 🌹 rose; 🌻 sunflower; 🌸 cherry blossom; 🍎 apple/red apple; 🍐 pear;
🍊 orange/tangerine; 🍋 lemon; 🍌 banana; 🍉 watermelon; ~🍇 grapes; 🍓 strawberry; ~🍒 cherries; 🍍 pineapple; 🍅 tomato; 🥑 avocado; 🥕 carrot;
🌽 corn cob/ear of corn; 🍞 loaf of bread; 🧀 cheese/cheese wedge; 🥚 egg; 🍳 fried egg/frying pan; 🌭 hot dog; 🍔 hamburger/burger;
~🍟 french fries/fries; 🍕 pizza/slice of pizza; 🍦 ice cream/ice cream cone; 🍩 doughnut/donut; 🍪 cookie/biscuit; 🎂 birthday cake/cake; 🍭 lollipop;
☕ cup of coffee/coffee; 🍺 beer mug/beer; ⚽ soccer ball/football; 🏀 basketball; 🎾 tennis ball; 🎱 billiard ball/eight ball; 🎲 die/dice;
🎸 guitar; 🥁 drum; 🎺 trumpet; 🏆 trophy; 🚗 car/automobile; 🚌 bus; 🚑 ambulance; 🚜 tractor; 🚲 bicycle/bike; 🚂 steam train/locomotive;
🚁 helicopter; 🚀 rocket/spaceship; ⛵ sailboat/yacht; ✈️ airplane/aeroplane/plane; 🎈 balloon; 🏠 house/home; 🏰 castle; ⛺ tent; ⚓ anchor;
📱 phone/mobile phone/smartphone; 💻 laptop/computer; 📷 camera; 📺 television/TV; 💡 light bulb; 🕯️ candle; 💎 diamond/gem; 🔨 hammer; 🔑 key;
🧸 teddy bear; 🎁 gift/present; ✉️ envelope/letter; ~📚 books; ⏰ alarm clock; 🌍 globe/earth; ☂️ umbrella; 👑 crown; 🎩 top hat; 👗 dress;
👠 high heel/high-heeled shoe; 🎒 backpack/rucksack; ☀️ sun; 🌙 moon/crescent moon; ⭐ star; ❤️ heart/red heart; ⛄ snowman; 🎃 pumpkin/jack-o-lantern;
👻 ghost; 🤖 robot/android; 👽 alien/extraterrestrial; 😀 happy face/grinning face; 😡 angry face; 😮 surprised face; 😭 sobbing face/crying face;
💀 skull; 😎 cool face; 😴 sleeping face; 😍 face with heart eyes; 🐹 hamster; 🐦 bird; 🦅 eagle; 🦇 bat; 🐺 wolf; 🐗 boar; 🐛 caterpillar/bug; 🐜 ant;
🕷️ spider; 🦂 scorpion; 🦎 lizard; 🦑 squid; 🦐 shrimp; 🐡 blowfish/pufferfish; 🦈 shark; 🐊 crocodile/alligator; 🐆 leopard; 🦓 zebra; 🦍 gorilla;
🦛 hippopotamus/hippo; 🦏 rhinoceros/rhino; 🐪 camel; 🦘 kangaroo; 🐃 buffalo; 🐏 ram; 🐐 goat; 🦌 deer; 🐓 rooster; 🦃 turkey; 🦚 peacock;
🦜 parrot; 🦢 swan; 🦩 flamingo; 🦝 raccoon; 🦨 skunk; 🦥 sloth; 🦔 hedgehog; 🐉 dragon; 🐿️ squirrel/chipmunk; 🌳 tree/leafy tree; 🌱 seedling;
🍀 four leaf clover/clover; 🌺 hibiscus; 💐 bouquet; 🌾 sheaf of rice; 🍏 green apple; 🍑 peach; 🥭 mango; 🥥 coconut; 🥝 kiwi; 🍆 eggplant/aubergine;
🥦 broccoli; 🥒 cucumber; 🌶️ hot pepper/chilli; 🧅 onion; 🥔 potato; 🥐 croissant; 🥨 pretzel; ~🥞 pancakes; 🧇 waffle; 🥓 bacon; 🍗 chicken leg/drumstick;
🥪 sandwich; 🌮 taco; 🌯 burrito; 🥗 salad; 🍝 spaghetti/pasta; 🍜 bowl of noodles/ramen; 🍣 sushi; 🍤 fried shrimp/tempura; 🍙 rice ball;
🍰 slice of cake/shortcake; 🧁 cupcake; 🥧 pie; 🍫 chocolate bar/chocolate; 🍬 candy; 🍯 honey pot; 🥛 glass of milk; 🍵 cup of tea; 🍷 wine glass/glass of wine;
🍸 cocktail; 🍹 tropical drink; 🥤 soda cup/soda; 🧋 bubble tea; 🥄 spoon; 🏈 american football; ⚾ baseball; 🏐 volleyball; 🏓 ping pong paddle;
🏸 badminton racket; 🥊 boxing glove; 🛹 skateboard; ~🎿 skis; 🛷 sled/sleigh; 🎯 dartboard/bullseye; 🎮 game controller/gamepad; 🧩 puzzle piece;
♟️ chess pawn; 🎨 paint palette; 🎤 microphone; ~🎧 headphones; 🎹 piano/piano keyboard; 🎷 saxophone; 🎻 violin; 🥇 gold medal; 🚕 taxi;
🚓 police car; 🚒 fire truck/fire engine; 🚚 truck/delivery truck; 🛵 scooter/motor scooter; 🏍️ motorcycle/motorbike; 🛴 kick scooter; 🛸 flying saucer/UFO;
🚤 speedboat; 🚢 ship; 🎡 ferris wheel; 🎢 roller coaster; ⛲ fountain; 🏭 factory; 🗼 tower; 🗽 Statue of Liberty; ⛪ church; 🚦 traffic light; 🛶 canoe;
🎠 carousel; ⌚ watch/wristwatch; ⌨️ keyboard; 🖨️ printer; 🎥 movie camera; 📻 radio; ☎️ telephone; 🔋 battery; 🔦 flashlight; 🧯 fire extinguisher;
💰 money bag; 🔧 wrench/spanner; 🪓 axe; ⚙️ gear/cog; 🧲 magnet; 💣 bomb; 🔪 kitchen knife/knife; 🛡️ shield; 🔭 telescope; 🔬 microscope; 💊 pill;
💉 syringe; 🧬 dna helix; 🦠 microbe/virus; 🧪 test tube; 🌡️ thermometer; 🧹 broom; 🧺 basket; 🧻 toilet paper; 🚽 toilet; 🚿 shower; 🛁 bathtub;
🚪 door; 🛏️ bed; 🛋️ couch/sofa; 🎀 ribbon/bow; 📦 cardboard box/parcel; 📖 open book; ~✂️ scissors; 📌 pushpin; 📎 paperclip; 📏 ruler; 🖊️ pen;
🖍️ crayon; 🔒 padlock; 🔔 bell; ⌛ hourglass; 🧭 compass; 🗺️ world map; 🗿 moai statue; 🪑 chair; 🧳 suitcase; ~👓 glasses; 👒 straw hat; 🧢 baseball cap;
👕 t-shirt; ~👖 jeans; 👟 sneaker/running shoe; 👢 boot; ~🧤 gloves; 🧣 scarf; ~🧦 socks; 💍 ring; 👜 handbag/purse; 💄 lipstick; ~🕶️ sunglasses;
~🥽 goggles; ☁️ cloud; 🌈 rainbow; 🔥 fire/flame; ❄️ snowflake; ⚡ lightning bolt; 💧 water drop; 🌋 volcano; 🤡 clown; 👾 space invader/pixel monster;
🤢 nauseated face; 😇 angel face; 🥶 freezing face; 🤠 cowboy; 👁️ eye; 👂 ear; 👃 nose; 👄 mouth/lips; ~👣 footprints; 🧠 brain; 🦷 tooth; 🦴 bone;
👶 baby; 👮 police officer; 👷 construction worker/builder; 💂 guard; 🕵️ detective; 🧙 wizard/mage; 🧚 fairy; 🧛 vampire; 🧜 mermaid; 🧟 zombie;
🎅 Santa Claus; 🥷 ninja; 👸 princess; 🤴 prince; 🕺 dancing man; 💃 dancing woman; 🏄 surfer; 🚴 cyclist
"""

_PLURALS = {
    "mouse": "mice",
    "sheep": "sheep",
    "fish": "fish",
    "die": "dice",
    "cup of coffee": "cups of coffee",
    "deer": "deer",
}


@dataclass(frozen=True)
class Noun:
    """One thing that a scene can hold."""

    name: str
    emoji: str
    synonyms: tuple[str, ...] = ()
    plural_only: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The name and every synonym."""
        return (self.name, *self.synonyms)


def plural(name: str) -> str:
    """English plural of a noun of this vocabulary ("slice of pizza" → "slices of pizza")."""
    if name in _PLURALS:
        return _PLURALS[name]
    head, separator, rest = name.partition(" of ")
    if separator and head not in ("face",):
        return plural(head) + separator + rest
    if name.startswith("face with "):
        return "faces with " + name.removeprefix("face with ")
    if name.endswith(("s", "x", "ch", "sh")):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    if name.endswith("knife"):
        return name[:-2] + "ves"
    if name.endswith(("leaf", "loaf", "wolf")):
        return name[:-1] + "ves"
    return name + "s"


def article(words: str) -> str:
    """The indefinite article for `words`: "a panda", "an owl", "a unicorn", "a UFO"."""
    return "an" if words[0].lower() in "aeiou" and not words.lower().startswith(("uni", "ufo", "eur", "one")) else "a"


def _parse(table: str) -> tuple[Noun, ...]:
    nouns = []
    for entry in table.replace("\n", " ").split(";"):
        emoji, _, names = entry.strip().partition(" ")
        name, *synonyms = names.split("/")
        nouns.append(Noun(name, emoji.lstrip("~"), tuple(synonyms), emoji.startswith("~")))
    return tuple(nouns)


NOUNS = _parse(_TABLE)
FREQUENT_NOUNS = NOUNS[:FREQUENT]
NOUN_BY_NAME = {noun.name: noun for noun in NOUNS}

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 45, 45),
    "orange": (245, 140, 30),
    "yellow": (250, 215, 50),
    "green": (60, 170, 70),
    "teal": (30, 160, 160),
    "blue": (50, 100, 225),
    "purple": (140, 70, 200),
    "pink": (245, 130, 185),
    "brown": (135, 85, 50),
    "black": (45, 45, 50),
    "white": (245, 245, 245),
    "gray": (140, 140, 145),
}

# Background → ways to say it after an object ("a panda …"). The first is the canonical one.
BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "white": ("on a plain white background", "on white", "against a white backdrop"),
    "yellow": ("on a plain yellow background", "on a yellow background", "against a yellow backdrop"),
    "pink": ("on a plain pink background", "on a pink background", "against a pink backdrop"),
    "light blue": ("on a plain light blue background", "on a light blue background", "on pale blue"),
    "green": ("on a plain green background", "on a green background", "against a green backdrop"),
    "gray": ("on a plain gray background", "on a gray background", "on grey"),
    "black": ("on a plain black background", "on a black background", "in the dark"),
    "sunset": ("at sunset", "in front of a sunset sky", "under an orange sunset sky"),
    "rainbow gradient": ("on a rainbow gradient", "on a rainbow coloured background", "against a colourful gradient"),
    "brick wall": ("on a brick wall", "in front of a brick wall", "against a red brick wall"),
    "meadow": ("in a meadow", "on green grass", "on a grassy field", "on the grass under a blue sky"),
    "sea": ("at sea", "on the sea", "on the ocean", "on blue water with waves"),
    "underwater": ("under water", "underwater", "at the bottom of the sea", "deep in the ocean with bubbles"),
    "desert": ("in the desert", "on sand dunes", "in a sandy desert"),
    "snow": ("in the snow", "on a snowy field", "in a snowy landscape", "in winter"),
    "night sky": ("in the night sky", "in space", "under the stars", "among the stars"),
    "wooden table": ("on a wooden table", "on a wooden floor", "on brown wood"),
    "checkerboard": ("on a checkerboard", "on a chess board", "on a checkered floor"),
    "stripes": ("on a striped background", "on stripes", "in front of stripes"),
    "polka dots": ("on polka dots", "on a polka dot background", "against a dotted background"),
    "kitchen": ("in the kitchen", "in a kitchen", "in front of kitchen tiles", "cooking in the kitchen"),
    "city": ("in the city", "in front of a city skyline", "on a city street"),
    "mountains": ("in the mountains", "in front of mountains", "with snowy mountains behind"),
    "forest": ("in the forest", "in the woods", "among the trees"),
    "beach": ("on the beach", "at the beach", "on the sand by the sea"),
    "sidewalk": (
        "on a wall above a sidewalk with grass in the cracks",
        "on a brick wall. A sidewalk is in front of the wall, and grass is growing out of cracks in the concrete",
        "on a sidewalk with grass growing out of the cracks",
        "in front of a wall with a cracked sidewalk",
    ),
    "chalkboard": ("on a chalkboard", "on a blackboard", "in a classroom"),
    "living room": ("in the living room", "at home on the carpet", "in a cosy room with a window"),
}

# Style → (ways to put it before the whole, ways to put it after). "{}" is the rest of the caption.
STYLES: dict[str, tuple[str, ...]] = {
    "pixel art": ("pixel art of {}", "{}, pixel art", "{} in pixel art style", "8-bit {}"),
    "pencil sketch": ("a pencil sketch of {}", "{}, pencil sketch", "a pencil drawing of {}"),
    "oil painting": ("an oil painting of {}", "{}, oil on canvas", "{} painted in oil"),
    "watercolor": ("a watercolor of {}", "{}, watercolor", "a watercolour painting of {}"),
    "graffiti": ("graffiti of {}", "{}, graffiti", "{} painted as graffiti"),
    "mosaic": ("a mosaic of {}", "{}, mosaic", "{} made of mosaic tiles"),
    "neon": ("a neon sign of {}", "{}, neon", "{} in glowing neon lights"),
}
