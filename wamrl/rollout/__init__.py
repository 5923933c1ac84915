"""Running a policy in many environments at once, and keeping what the update needs.

types     Decisions, Rollout: what was decided and what became of it
schedule  which episode begins next
collect   plays the episodes
gather    the outcomes of all ranks
samples   what training makes of a rollout: imagined frames, reward inputs, clips
metrics   what the log says of it
"""
