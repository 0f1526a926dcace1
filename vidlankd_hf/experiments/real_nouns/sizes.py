"""Sizes of nouns, for clips in which objects keep their relative sizes."""

# Longest side of a typical one in centimetres, estimated by hand: 3000 means 30 metres or more.
_NOUNS = {
    0.5: ("ant, microbe"),
    1: ("bug, fly, lady beetle, ladybug, mosquito, pea, pill, rice, tooth"),
    2: (
        "bee, beetle, blueberries, blueberry, bullet, cherries, cherry, chestnut, coin, cork, dice, fry, game die, "
        "grape, gum, honeybee, nail, olive, peanuts, pushpin, ring, screw, snowflake, spider"
    ),
    4: (
        "apricot, battery, bolt, bone, candy, caterpillar, chess pawn, chocolate, clover, cockroach, computer mouse, "
        "cricket, dango, dumpling, ear, earbud, eraser, fallen leaf, feather, garlic, grasshopper, hot pepper, key, "
        "kiwi, kiwi fruit, leaf, lime, maple leaf, marshmallow, meatball, mouse trap, mushroom, oyster, paperclip, "
        "plum, popcorn, radish, raspberry, safety pin, sewing needle, shamrock, shell, shrimp, snail, spool, "
        "stopwatch, strawberry, sushi, teeth, thumb, tongue, walnut, worm"
    ),
    7: (
        "apple, baby chick, bagel, baseball, beet, bell pepper, blossom, bubble tea, bulb, butterfly, cherry blossom, "
        "chick, compass, cookie, crayon, credit card, croissant, cupcake, daffodil, dandelion, doughnut, dragonfly, "
        "egg, falafel, flower, frog, glasses, goggles, hamster, hatching chick, herb, hibiscus, hyacinth, ice "
        "cream, identification card, iris, lavender, lemon, lipstick, lizard, lotus, military medal, moon cake, "
        "mouse, muffin, onion, onion ring, padlock, pancake, pancakes, peach, pear, peppers, potato, potato chip, "
        "pretzel, rice ball, rose, rosette, seahorse, shaved ice, soap, softball, sparrow, spiral shell, sponge, "
        "sports medal, starfish, sunglasses, taco, tangerine, tennis ball, tomato, tulip, turnip, waffle, watch, "
        "whistle, yarn"
    ),
    12: (
        "admission tickets, artichoke, asparagus, aubergine, avocado, baby bottle, bacon, banana, beer mug, bell, "
        "bellhop bell, beverage box, bird, blowfish, boomerang, bread, broccoli, burger, burrito, butter, calculator, "
        "camera, candle, canned food, carrot, celery, cheese, cheese wedge, chipmunk, chocolate bar, chopsticks, "
        "cigarette, clapper board, clutch bag, cocktail, coconut, computer disk, corn, crab, crystal ball, cucumber, "
        "cup, cutlery, dagger, dove, drumstick, duckling, dvd, eggplant, envelope, flashlight, floppy disk, flying "
        "disc, fountain pen, gloves, grapefruit, hair pick, hamburger, honey pot, hook, hot beverage, hot dog, "
        "incoming envelope, jar, joystick, knife, lollipop, lotion bottle, magnet, mango, memo, microphone, milk "
        "carton, mirror ball, mobile phone, mole, mug, notebook, optical disk, pager, paintbrush, pen, pencil, pepper "
        "grinder, petri dish, pickle, pie, pomegranate, pouch, poultry leg, purse, rat, razor, receipt, root "
        "vegetable, ruler, sandwich, saucer, scissors, scorpion, screwdriver, seedling, shortcake, sock, socks, "
        "spoon, steak, straight ruler, syringe, teacup, telephone receiver, test tube, thermometer, thread, ticket, "
        "toothbrush, toy, tropical drink, tropical fish, videocassette, yam, yoghurt"
    ),
    25: (
        "abacus, alarm clock, american football, artist palette, baguette bread, ballet shoes, baseball glove, "
        "basketball, bento box, bikini, billed cap, binoculars, birthday cake, book, bottle, bouquet, bowl, box, "
        "boxing glove, brick, briefs, bucket, bunny, cabbage, cake, cantaloupe, cauliflower, chest, chicken, "
        "clipboard, closed book, crow, crown, curry rice, diya lamp, drum, duck, fedora, fish, ferret, file folder, "
        "flatbread, football, football helmet, framed picture, frying pan, graduation cap, gull, gun, hammer, "
        "handbag, handgun, hat, headphone, headphones, hedgehog, helmet, hiking boot, hourglass done, ice skate, jug, "
        "kale, kettle, keyboard, lamp, lettuce, lobster, loudspeaker, mantelpiece clock, maracas, megaphone, melon, "
        "microscope, military helmet, movie camera, necklace, necktie, nesting dolls, newspaper, open book, owl, "
        "package, parrot, pasta, picture frame, pineapple, ping pong, pizza, plate, plunger, potted plant, present, "
        "pumpkin, rabbit, radio, raven, roller skate, rooster, rugby football, running shoe, sandal, shoe, shopping "
        "bags, skull, skunk, slate, soccer ball, spaghetti, spinach, squid, squirrel, steaming bowl, stethoscope, "
        "stuffed flatbread, takeout box, teapot, teddy bear, teddybear, telephone, thong sandal, tie, timer clock, "
        "toolbox, top hat, tortoise, trophy, trumpet, turtle, video camera, volleyball, wastebasket, water bottle, "
        "water pistol, watermelon, wrapped gift, wrench"
    ),
    60: (
        "accordion, amphora, axe, backpack, badger, balance scale, balloon, banjo, barrel, baseball bat, basket, "
        "beaver, bow, briefcase, broom, carpentry saw, cat, chair, closed umbrella, crossed swords, crutch, desktop, "
        "desktop computer, dog, drill, eagle, fax machine, fern, field hockey, film projector, fire extinguisher, "
        "flamingo, fox, goose, guitar, headstone, jacket, jeans, jellyfish, kite, koala, lacrosse, laptop, luggage, "
        "magic wand, mailbox, mirror, monitor, monkey, musical keyboard, octopus, oil drum, otter, peacock, pelican, "
        "penguin, poodle, postbox, printer, projector, pullover, raccoon, ring buoy, running shirt, safety vest, "
        "satchel, saxophone, scarf, seat, shield, shirt, shorts, shrub, skateboard, skirt, sled, sloth, snake, stop "
        "sign, street sign, suitcase, swan, sword, t shirt, television, tennis racket, tire, toilet, tombstone, "
        "tricycle, trombone, trousers, turkey, umbrella, uniform, violin, wheel"
    ),
    150: (
        "antelope, bathtub, bicycle, bike, boar, boy, cabinet, cactus, carpet, closet, coat, coffin, deer, desk, "
        "dodo, donkey, door, dress, ewe, file cabinet, girl, goat, gorilla, guide dog, harp, human, jaguar, kangaroo, "
        "kick scooter, kimono, lab coat, ladder, leopard, llama, man, manual wheelchair, motor scooter, motorized "
        "wheelchair, mule, orangutan, ostrich, panda, panther, piano, pig, ram, robe, sari, seal, service dog, sheep, "
        "shopping cart, shower, ski, skis, slot machine, snowman, suit, sunflower, surfboard, table, telescope, "
        "window, wolf, woman"
    ),
    250: (
        "auto rickshaw, bamboo, barber pole, bear, bed, bison, bull, camel, carousel horse, cattle, couch, cow, "
        "crocodile, dolphin, fountain, hippopotamus, horse, lion, moose, motorcycle, ox, playground slide, polar "
        "bear, raft, rhinoceros, sea lion, shark, tent, tiger, wagon, water buffalo, zebra"
    ),
    500: (
        "ambulance, antenna, automobile, cabin, canoe, car, elephant, flatbed, giraffe, hut, mammoth, minibus, moai, "
        "motor boat, motorboat, oncoming automobile, oncoming taxi, orca, palm tree, parachute, pickup truck, police "
        "car, pool, racing car, satellite, satellite antenna, sedan, shelter, speedboat, taxi, tractor, van"
    ),
    1000: (
        "articulated lorry, bus, caboose, carousel, christmas tree, circus tent, convenience store, crane, deciduous "
        "tree, delivery truck, derelict house, evergreen tree, fire engine, helicopter, house, houses, leafless tree, "
        "locomotive, lorry, mill, oncoming bus, railway car, sailboat, sauropod, spouting whale, tanabata tree, "
        "tanker, tram, tram car, tree, trolleybus, truck, water tower, whale, windmill, yacht"
    ),
    3000: (
        "aircraft, airplane, airplane arrival, airplane departure, bank, building construction, bullet train, castle, "
        "church, classical building, department store, factory, ferris wheel, ferry, hindu temple, hospital, hotel, "
        "iceberg, japanese castle, jet, kaaba, lighthouse, love hotel, metro, monorail, mosque, mount fuji, mountain, "
        "office building, passenger ship, plane, post office, rocket, roller coaster, school, shinto shrine, ship, "
        "stadium, station, submarine, synagogue, theatre, tokyo tower, tower, train, tunnel, volcano"
    ),
}
CENTIMETERS = {noun: float(size) for size, nouns in _NOUNS.items() for noun in nouns.split(", ")}
