{#- Rows whose counts are not the sum of those of the finer stretches they are made of. -#}
{% test equals_sum_of_parts(model, parts) %}
{%- set counts = ['present', 'verified', 'unconfirmed', 'partial', 'silent', 'revised'] -%}
with whole as (
    select * from {{ tested_bars(model) }}
)

select
    whole.symbol,
    whole.open_time,
    {% for count in counts -%}
    whole.{{ count }}_minutes,
    parts.{{ count }}_minutes as {{ count }}_of_parts{{ ',' if not loop.last }}
    {% endfor %}
from whole
cross join lateral (
    select
        {% for count in counts -%}
        sum(finer.{{ count }}_minutes) as {{ count }}_minutes{{ ',' if not loop.last }}
        {% endfor %}
    from {{ parts }} as finer
    where
        finer.symbol = whole.symbol
        and finer.open_time >= whole.open_time
        and finer.open_time < whole.open_time + interval '1440 minutes'
) as parts
where
    {% for count in counts -%}
    whole.{{ count }}_minutes is distinct from parts.{{ count }}_minutes{{ ' or' if not loop.last }}
    {% endfor %}
{% endtest %}
