{#- Rows that share their values in the given columns. -#}
{% test unique_combination(model, combination) %}
with bars as (
    select * from {{ tested_bars(model) }}
)

select
    {{ combination | join(', ') }},
    count(*) as row_count
from bars
group by {{ combination | join(', ') }}
having count(*) > 1
{% endtest %}
