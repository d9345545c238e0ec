/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/odd_json.h"

#include <stdint.h>

static uint32_t below(struct random *dice, uint32_t n)
{
	return (uint32_t)random_below(dice, n);
}

static json_t *odd_number(struct random *dice)
{
	static const json_int_t numbers[] = {
		-1,  0,    1,     2,     3,         16,        255,
		257, 4097, 65535, 65536, 0x1000000, INT32_MAX, INT64_C(0x100000000)};

	switch (below(dice, 8)) {
	case 0:
		return json_integer(INT64_MAX - below(dice, 2));
	case 1:
		return json_integer(INT64_MIN);
	default:
		return json_integer(numbers[below(dice, sizeof(numbers) / sizeof(numbers[0]))]);
	}
}

json_t *odd_json(struct random *dice)
{
	static const char *const texts[] = {
		"",
		"0",
		"-1",
		"zz",
		"00000000000000000000ffff7f000001",
		"00000000000000000000FFFF7F000001",
		"0000000000000000000000000000000\xc3\xa9",
		"ffffffffffffffffffffffffffffffffffffffff",
		"0x12345678",
		"%s%n%s",
	};

	switch (below(dice, 10)) {
	case 0:
	case 1:
	case 2:
	case 3:
		return odd_number(dice);
	case 4:
	case 5:
		return json_string(texts[below(dice, sizeof(texts) / sizeof(texts[0]))]);
	case 6:
		return json_null();
	case 7:
		return below(dice, 2) ? json_array() : json_object();
	case 8:
		return below(dice, 2) ? json_true() : json_real(1e99);
	default:
		return json_pack("[[i, i], [i]]", 1, 2, 3);
	}
}

static void spoil_array(struct random *dice, json_t *array)
{
	size_t n = json_array_size(array), at = n ? below(dice, (uint32_t)n) : 0;

	if (n > 0 && below(dice, 3) && json_is_array(json_array_get(array, at)))
		spoil_array(dice, json_array_get(array, at));
	else if (n > 0 && below(dice, 3) && json_is_object(json_array_get(array, at)))
		spoil_json(dice, json_array_get(array, at));
	else if (n > 0 && below(dice, 3) == 0)
		json_array_remove(array, at);
	else if (n > 0 && below(dice, 2))
		json_array_set_new(array, at, odd_json(dice));
	else
		json_array_append_new(array, n > 0 && below(dice, 2)
						     ? json_deep_copy(json_array_get(array, at))
						     : odd_json(dice));
}

void spoil_json(struct random *dice, json_t *value)
{
	size_t n = json_object_size(value);
	uint32_t at = n ? below(dice, (uint32_t)n) : 0;
	const char *key;
	json_t *member;
	void *next;

	if (json_is_array(value)) {
		spoil_array(dice, value);
		return;
	}
	json_object_foreach_safe(value, next, key, member)
	{
		if (at-- > 0)
			continue;
		if (below(dice, 3) && (json_is_object(member) || json_is_array(member)))
			spoil_json(dice, member);
		else if (below(dice, 3))
			json_object_set_new(value, key, odd_json(dice));
		else
			json_object_del(value, key);
		return;
	}
}
